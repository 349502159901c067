// An OpenID provider for the tests: npm's oidc-provider, made to log people in without asking and, when told to, to lie.
//
//   LB_IDP_HOME=<folder with node_modules> node server.mjs '<settings as JSON>'
//
// Settings: {port, host, certificate, key, clients, profile}; `profile` is a key of profiles.mjs. The answers to `POST /switches` change what it does from then on;
// `GET /seen` tells what it was asked. Once it listens it writes one line to standard output: its issuer.

import { X509Certificate, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { createServer } from 'node:https';
import { pathToFileURL } from 'node:url';

import { PROFILES } from './profiles.mjs';

const home = createRequire(pathToFileURL(`${process.env.LB_IDP_HOME}/`));
const load = (name) => import(pathToFileURL(home.resolve(name)));
const { default: Provider, interactionPolicy } = await load('oidc-provider');
const { SignJWT, UnsecuredJWT, decodeJwt, exportJWK, generateKeyPair } = await load('jose');

const settings = JSON.parse(process.argv[2]);
const issuer = `https://${settings.host}:${settings.port}`;
const RESOURCE = 'https://api.example';
const profile = PROFILES[settings.profile];
const ACRS = profile.acrs;

// What tests may change, and what it is without them.
const honest = () => ({
  account: 'carol', // who logs in
  groups: ['staff', 'support'],
  acr: 'honour', // or the value that is claimed whatever was asked for
  amr: profile.amr, // what it says was used, by the value that is claimed
  auth_time_offset_seconds: 0, // how long ago the login claims to have been, beside the truth
  id_token: {}, // claims to put over the honest ones; null takes one away
  header: {}, // likewise for the header of the ID token
  user_info: {}, // likewise for what the user info endpoint says
  algorithm: 'ES256', // or none: unsigned, or HS256: signed with the client's secret
  authorization_response: {}, // parameters to put over those of the redirect back; null takes one away
  trouble: {}, // path, or *, to: html | slow | huge | down | error
  rotate_keys: false,
});
let switches = honest();
const seen = [];

async function newKey() {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const more = { kid: randomUUID(), use: 'sig', alg: 'ES256' };
  return { privateKey, jwk: { ...(await exportJWK(privateKey)), ...more }, publicJwk: { ...(await exportJWK(publicKey)), ...more } };
}
const key = await newKey();
// A key that is published only once `rotate_keys` is set; ID tokens are then signed with it.
const nextKey = await newKey();

// The strengths that will do: by `acr_values`, or by the claim that Entra has for them.
function askedFor(params) {
  const { values = [], value } = JSON.parse(params.claims ?? '{}').id_token?.acrs ?? {};
  return [...(params.acr_values?.split(' ') ?? []), ...values, ...(value ? [value] : [])];
}

const policy = interactionPolicy.base();
const { Check } = interactionPolicy;
policy.get('login').checks.add(new Check('acr_values', 'a stronger login was asked for', (ctx) => {
  const asked = askedFor(ctx.oidc.params);
  const isMet = asked.length === 0 || asked.includes(ctx.oidc.acr);
  // A liar does not ask again, or the login would never end.
  return switches.acr === 'honour' && !isMet ? Check.REQUEST_PROMPT : Check.NO_NEED_TO_PROMPT;
}));

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: [key.jwk] },
  acrValues: ACRS,
  claims: { openid: ['sub', 'acr', 'amr', 'auth_time', 'sid'], profile: ['name', 'preferred_username', 'groups'] },
  conformIdTokenClaims: false,
  cookies: { keys: ['only for tests'] },
  pkce: { required: () => true },
  scopes: ['openid', 'profile', 'offline_access', 'orders:read', 'orders:write'],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  enabledJWA: { idTokenSigningAlgValues: ['ES256', 'RS256'] },
  interactions: { policy, url: (_, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: 600, ClientCredentials: 600, IdToken: 600, Session: 3600, Grant: 3600, Interaction: 600 },
  // Its own dispatcher refuses addresses of this machine, where the edge is.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  async findAccount(_, id) {
    const claims = { sub: id, name: `${id} of the tests`, preferred_username: id, groups: switches.groups };
    return { accountId: id, claims: () => claims };
  },
  // Everything that is asked for is granted.
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile offline_access');
    grant.addOIDCClaims(['sub', 'acr', 'auth_time', 'acrs', 'groups', 'name', 'preferred_username']);
    grant.addResourceScope(RESOURCE, 'orders:read orders:write');
    await grant.save();
    return grant;
  },
  // Access tokens say how their user was authenticated, as RFC 9470 section 6 has it.
  async extraTokenClaims(ctx, token) {
    const code = ctx.oidc.entities.AuthorizationCode;
    const user = code && { acr: code.acr, auth_time: code.authTime - switches.auth_time_offset_seconds, amr: code.amr };
    return { ...user, ...(token.accountId && { groups: switches.groups }) };
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    claimsParameter: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    introspection: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      // Nobody is asked; who has no JavaScript sends the form.
      logoutSource(ctx, form) {
        const yes = '<button name="logout" value="yes" form="op.logoutForm">Log out</button>';
        ctx.body = `<!DOCTYPE html><title>Log out</title>${form}${yes}`;
      },
    },
    dPoP: { enabled: true, nonceSecret: undefined },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      getCertificate(ctx) {
        const { raw } = ctx.req.socket.getPeerCertificate();
        return raw && new X509Certificate(raw);
      },
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource, client) => ({
        scope: 'orders:read orders:write',
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: client.clientId.startsWith('opaque') ? 'opaque' : 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});

// Nonces of the authorization requests in which somebody proved something, and when each account did so first.
const proved = new Set();
const firstLogin = new Map();

// Asked at each interaction, so that no test needs to fill in a form.
async function logIn(ctx, uid) {
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  const asked = prompt.details?.acr?.values ?? askedFor(params);
  const acr = switches.acr === 'honour' ? asked.find((value) => ACRS.includes(value)) ?? ACRS[0] : switches.acr;
  if (switches.acr === 'honour' && asked.length > 0 && !asked.some((value) => ACRS.includes(value))) {
    return { error: 'unmet_authentication_requirements', error_description: 'no such acr here' };
  }
  // A `sub` that was pinned and a person who is somebody else: the liar logs in whoever sits there.
  const accountId = switches.account ?? session?.accountId;
  const now = Math.floor(Date.now() / 1000);
  if (!firstLogin.has(accountId)) firstLogin.set(accountId, now);
  proved.add(params.nonce);
  seen.push({ method: 'LOGIN', path: ctx.path, query: { ...params } });
  const ts = profile.authTimeStands ? firstLogin.get(accountId) : now;
  return { login: { accountId, acr, amr: switches.amr[acr] ?? ['pwd'], ts, remember: true } };
}

function overlay(honestOnes, lies) {
  const claims = { ...honestOnes, ...lies };
  return Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== null));
}

async function lieAboutIdToken(token) {
  const offset = switches.auth_time_offset_seconds;
  const honestOnes = decodeJwt(token);
  const claims = overlay(profile.idToken(honestOnes, proved.has(honestOnes.nonce)), switches.id_token);
  if (offset && claims.auth_time) claims.auth_time -= offset;
  const signer = switches.rotate_keys ? nextKey : key;
  if (switches.algorithm === 'none') return new UnsecuredJWT(claims).encode();
  const secret = new TextEncoder().encode(settings.clients[0].client_secret);
  const header = overlay({ alg: switches.algorithm, kid: signer.jwk.kid, typ: 'JWT' }, switches.header);
  return new SignJWT(claims).setProtectedHeader(header).sign(switches.algorithm === 'HS256' ? secret : signer.privateKey);
}

// Makes trouble on the paths that a switch names, before oidc-provider sees the request.
async function makeTrouble(ctx, next) {
  const trouble = switches.trouble[ctx.path] ?? switches.trouble['*'];
  switch (ctx.path === '/switches' || ctx.path === '/seen' ? undefined : trouble) {
    case 'html':
      ctx.type = 'html';
      ctx.body = '<!DOCTYPE html><title>Captive portal</title><p>Welcome to the hotel.';
      return;
    case 'huge':
      ctx.type = 'json';
      ctx.body = JSON.stringify({ issuer, padding: 'x'.repeat(16 * 1024 * 1024) });
      return;
    case 'slow':
      await new Promise((resolve) => { setTimeout(resolve, 60_000).unref(); });
      return;
    case 'down':
      ctx.req.socket.destroy();
      ctx.respond = false;
      return;
    case 'error':
      ctx.status = 500;
      ctx.body = 'no';
      return;
    default:
      await next();
  }
}

async function controls(ctx, next) {
  if (ctx.path === '/switches') {
    let text = '';
    for await (const chunk of ctx.req) text += chunk;
    const { reset, ...changes } = JSON.parse(text || '{}');
    switches = { ...(reset ? honest() : switches), ...changes };
    ctx.body = switches;
    return;
  }
  if (ctx.path === '/seen') {
    ctx.body = seen;
    return;
  }
  if (ctx.path === '/account-tokens') {
    // An access token of a person, without a browser: what a phone's app would hold.
    const { auth_time: authTime, ...query } = ctx.query;
    ctx.body = { access_token: await mintAccessToken({ authTime, ...query }) };
    return;
  }
  seen.push({ method: ctx.method, path: ctx.path, query: { ...ctx.query } });
  if (seen.length > 1000) seen.shift();
  await next();
}

async function interact(ctx, next) {
  const uid = ctx.path.match(/^\/interaction\/([^/]+)$/)?.[1];
  if (!uid) return next();
  const result = await logIn(ctx, uid);
  const to = await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
  ctx.redirect(to);
}

async function lie(ctx, next) {
  await next();
  if (ctx.path === '/.well-known/openid-configuration') ctx.body = overlay(ctx.body, profile.metadata);
  if (ctx.path === '/jwks' && switches.rotate_keys) ctx.body = { keys: [nextKey.publicJwk] };
  if (ctx.path === '/me' && ctx.body?.sub) ctx.body = overlay(ctx.body, switches.user_info);
  if (ctx.path === '/token' && ctx.body?.id_token) {
    ctx.body = { ...ctx.body, id_token: await lieAboutIdToken(ctx.body.id_token) };
  }
  const location = ctx.response.get('location');
  if (location?.includes('/.lb/callback/')) {
    const url = new URL(location);
    const changes = { ...profile.authorizationResponse, ...switches.authorization_response };
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    ctx.set('location', url.href);
  }
}

// `claims` and `header`: JSON to put over what an honest token says; null takes one away.
async function mintAccessToken({ client, account, acr = ACRS[0], authTime, scope = 'orders:read', jkt, x5t, claims, header }) {
  const now = Math.floor(Date.now() / 1000);
  const cnf = { ...(jkt && { jkt }), ...(x5t && { 'x5t#S256': x5t }) };
  const user = account && { acr, auth_time: Number(authTime ?? now), groups: switches.groups, preferred_username: account };
  const honestOnes = profile.accessToken({
    iss: issuer, aud: RESOURCE, client_id: client, sub: account ?? client, scope, jti: randomUUID(), iat: now, exp: now + 600,
    ...user,
    ...(Object.keys(cnf).length > 0 && { cnf }),
  });
  const signer = switches.rotate_keys ? nextKey : key;
  const honestHeader = { alg: 'ES256', typ: profile.accessTokenType, kid: signer.jwk.kid };
  return new SignJWT(overlay(honestOnes, JSON.parse(claims ?? '{}')))
    .setProtectedHeader(overlay(honestHeader, JSON.parse(header ?? '{}')))
    .sign(signer.privateKey);
}

for (const middleware of [controls, makeTrouble, interact, lie]) provider.use(middleware);
provider.on('server_error', (_, error) => console.error(error));
provider.on('backchannel.error', (_, error) => console.error(error));

const tls = { cert: settings.certificate, key: settings.key, requestCert: true, rejectUnauthorized: false };
createServer(tls, provider.callback()).listen(settings.port, '127.0.0.1', () => console.log(issuer));
// Ends with whoever started it.
process.stdin.on('end', () => process.exit()).resume();
