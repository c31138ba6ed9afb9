// A certified OpenID provider on loopback, for tests/oidc_provider.rs: strict rotation, codes for devices, applications.
// Says its address on the first line. `/drive?url=` plays the person: visits, agrees, and tells where the browser ends.
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import Provider from 'oidc-provider';

const certificate = new X509Certificate(readFileSync(process.argv[2]));
const key = {
  ...certificate.publicKey.export({ format: 'jwk' }),
  use: 'sig',
  'x5t#S256': createHash('sha256').update(certificate.raw).digest('base64url'),
};
const server = http.createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'tidings', client_secret: 's3cr~t+/&=', token_endpoint_auth_method: 'client_secret_post',
      application_type: 'native', redirect_uris: ['http://127.0.0.1/'], response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code', 'client_credentials'],
      scope: 'openid email profile offline_access mail',
    },
    {
      client_id: 'signed', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [key] },
      redirect_uris: [], response_types: [], grant_types: ['client_credentials'], scope: 'mail',
    },
  ],
  scopes: ['openid', 'offline_access', 'mail'],
  claims: { openid: ['sub'], email: ['email'], profile: ['preferred_username'] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: id, preferred_username: id }) }),
  rotateRefreshToken: true,
  cookies: { keys: ['only for tests'] },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
  },
  interactions: { url: (_, interaction) => `/agree/${interaction.uid}` },
});

// Whoever comes is alice, and agrees to everything.
async function agree(request, response) {
  const { params, grantId } = await provider.interactionDetails(request, response);
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: 'alice@sandbox.example', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId: 'alice@sandbox.example' }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

// A browser without a screen: cookies, redirects, and forms that are sent as they are.
async function drive(start) {
  const jar = new Map();
  let url = start;
  let body;
  for (let step = 0; step < 30; step += 1) {
    if (!url.startsWith(issuer)) return url;
    const answer = await fetch(url, {
      method: body ? 'POST' : 'GET', body, redirect: 'manual',
      headers: {
        cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; '),
        ...(body ? { 'content-type': 'application/x-www-form-urlencoded' } : {}),
      },
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      jar.set(name, value);
    }
    const location = answer.headers.get('location');
    body = undefined;
    if (location) {
      url = new URL(location, url).href;
      continue;
    }
    const page = await answer.text();
    const form = /<form[^>]*action="([^"]+)"[^>]*>([\s\S]*?)<\/form>/.exec(page);
    if (!form) return page;
    const fields = new URLSearchParams();
    for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
      const name = /name="([^"]*)"/.exec(input);
      if (name) fields.set(name[1], (/value="([^"]*)"/.exec(input) ?? [, ''])[1]);
    }
    fields.delete('abort');
    url = new URL(form[1].replaceAll('&amp;', '&'), url).href;
    body = fields.toString();
  }
  return 'it never ends';
}

const callback = provider.callback();
server.on('request', async (request, response) => {
  try {
    const url = new URL(request.url, issuer);
    if (url.pathname === '/drive') {
      response.end(await drive(url.searchParams.get('url')));
    } else if (url.pathname.startsWith('/agree/')) {
      await agree(request, response);
    } else {
      callback(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error?.stack ?? error));
  }
});
process.stdin.on('end', () => process.exit(0)).resume();
console.log(issuer);
