//! Servers for the demo and for tests, on loopback only: real sockets, nothing leaves the machine.

pub mod oauth;
