// How hosted providers differ from the standards and from one another, each as its documentation has it.
//
//   acrs                   what a login can be worth, the weakest first: what somebody gets who asks for nothing
//   amr                    what `amr` says of each
//   authTimeStands         a second factor does not move `auth_time`
//   metadata               put over what the provider says of itself; null takes a member away
//   authorizationResponse  likewise for the parameters that the browser brings back
//   idToken, accessToken   what becomes of the honest claims; `isProof`: somebody proved something for this very token
//   accessTokenType        `typ` in the header of access tokens; null: there is none

const same = (claims) => claims;
const without = (claims, ...names) => Object.fromEntries(Object.entries(claims).filter(([name]) => !names.includes(name)));

const MULTI_FACTOR = 'http://schemas.openid.net/pape/policies/2007/06/multi-factor';
const NO_PUSHED_REQUESTS = { pushed_authorization_request_endpoint: null, require_pushed_authorization_requests: null };
const NO_ISS = { authorization_response_iss_parameter_supported: null };

export const PROFILES = {
  // RFC 9068 access tokens, RFC 9126, RFC 9207.
  generic: {
    acrs: ['urn:idp:password', 'urn:idp:two-factor'],
    amr: { 'urn:idp:password': ['pwd'], 'urn:idp:two-factor': ['pwd', 'otp'] },
    metadata: {},
    authorizationResponse: {},
    idToken: same,
    accessToken: same,
    accessTokenType: 'at+jwt',
  },

  // https://www.keycloak.org/docs/latest/server_admin/index.html#_step-up-flow: `acr` is the level of authentication as a
  // number, as text, unless the realm maps it ("ACR to LoA Mapping"). Kinds of tokens are told apart by a claim `typ`, and a
  // service account has a user of its own, service-account-<client>.
  keycloak: {
    acrs: ['1', '2'],
    amr: {},
    metadata: {},
    authorizationResponse: {},
    idToken: (claims) => ({ ...without(claims, 'amr'), typ: 'ID', azp: claims.aud }),
    accessToken({ client_id: client, groups, ...claims }) {
      const program = { sub: '7a2c0e4e-service-account', preferred_username: `service-account-${client}`, client_id: client };
      const person = { realm_access: { roles: groups } };
      return { ...claims, typ: 'Bearer', azp: client, ...(claims.sub === client ? program : person) };
    },
    accessTokenType: 'JWT',
  },

  // https://auth0.com/docs/secure/multi-factor-authentication/step-up-authentication/configure-step-up-authentication-for-web-apps:
  // `amr` holds `mfa` after a second factor in this very transaction, and `auth_time` is that of the first login. There is no
  // `claims` parameter. A client's own token: https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
  auth0: {
    acrs: ['password', MULTI_FACTOR],
    amr: { password: [], [MULTI_FACTOR]: ['mfa'] },
    authTimeStands: true,
    metadata: { ...NO_PUSHED_REQUESTS, ...NO_ISS, claims_parameter_supported: null, acr_values_supported: null },
    authorizationResponse: { iss: null },
    idToken(claims, isProof) {
      const isStrong = claims.acr === MULTI_FACTOR;
      return { ...without(claims, 'acr', 'amr'), ...(isStrong && { acr: claims.acr }), ...(isStrong && isProof && { amr: ['mfa'] }) };
    },
    accessToken({ client_id: client, ...claims }) {
      const program = { sub: `${client}@clients`, gty: 'client-credentials' };
      return { ...without(claims, 'acr', 'auth_time'), azp: client, ...(claims.sub === client && program) };
    },
    accessTokenType: 'JWT',
  },

  // https://learn.microsoft.com/entra/identity-platform/developer-guide-conditional-access-authentication-context: the strength
  // is an authentication context, asked for and told by the claim `acrs`. `auth_time` is an optional claim that is switched
  // on here. Access tokens: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
  entra: {
    acrs: ['none', 'c1'],
    amr: {},
    metadata: { ...NO_PUSHED_REQUESTS, ...NO_ISS, claims_parameter_supported: null, acr_values_supported: null },
    authorizationResponse: { iss: null },
    idToken: (claims) => ({ ...without(claims, 'acr', 'amr'), ver: '2.0', ...(claims.acr !== 'none' && { acrs: [claims.acr] }) }),
    accessToken({ client_id: client, scope, acr, ...claims }) {
      const program = { sub: '0d2f-object-id-of-the-service', oid: '0d2f-object-id-of-the-service', roles: ['Orders.Read.All'] };
      const person = { scp: scope, oid: claims.sub, ...(acr !== 'none' && { acrs: [acr] }) };
      return { ...claims, ver: '2.0', azp: client, ...(claims.sub === client ? program : person) };
    },
    accessTokenType: 'JWT',
  },

  // https://developer.okta.com/docs/guides/step-up-authentication/main/: predefined values of `acr`, in ID tokens and access
  // tokens. Access tokens have no `typ`, `scp` is a list, and the client is `cid`:
  // https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/
  okta: {
    acrs: ['urn:okta:loa:1fa:any', 'urn:okta:loa:2fa:any'],
    amr: { 'urn:okta:loa:1fa:any': ['pwd'], 'urn:okta:loa:2fa:any': ['mfa', 'otp', 'pwd'] },
    metadata: NO_ISS,
    authorizationResponse: { iss: null },
    idToken: same,
    accessToken({ client_id: client, scope, ...claims }) {
      const person = claims.sub !== client && { uid: '00uid23456789abcdef' };
      return { ...claims, ver: 1, cid: client, scp: scope.split(' '), ...person };
    },
    accessTokenType: null,
  },
};
