//! HTTPS, below grants and transports: how a server is reached ([`way`]) and how what it says is read
//! ([`answer`]). It knows neither tokens nor mail.

pub mod answer;
pub mod way;
