#!/usr/bin/env bash
# arctic takes TikTok's refusal of a refresh token for tokens, and all of its scopes for one.
#
# Library: npm arctic 3.7.0, its TikTok client.
# Documentation: refreshAccessToken throws an OAuth2RequestError where the token is refused; scopes() is the list of the
#   scopes that were granted.
# Surprise: it looks at the status before the body. TikTok answers invalid_grant with status 200, too: the call then
#   resolves, and only the accessor throws, with words that do not name invalid_grant. And TikTok's scopes are separated by
#   commas, arctic splits at blanks: what an application stores of it holds no scope named video.list.
# The refresher: reads the body of a token answer before its status, and never decides by the stored scope: an account needs
#   a scope when TikTok says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts arctic@3.7.0

cat > refresh.mjs <<'JS'
import { TikTok } from "arctic";

let answer;
globalThis.fetch = async () => Response.json(answer); // status 200, nothing leaves this process
const client = new TikTok("key", "secret", "http://app.test/callback");
const what = async (run) => { try { return await run(); } catch (error) { return `${error.constructor.name}: ${error.message}`; } };

answer = { error: "invalid_grant", error_description: "Refresh token is invalid or expired.", log_id: "made-up" };
const refused = await what(async () => (await client.refreshAccessToken("rft.used-up")).constructor.name);
const accessed = await what(async () => (await client.refreshAccessToken("rft.used-up")).accessToken());
answer = { access_token: "act.1", refresh_token: "rft.1", expires_in: 7200, refresh_expires_in: 15552000,
  open_id: "-000made-up", scope: "user.info.basic,video.list", token_type: "Bearer" };
const scopes = (await client.refreshAccessToken("rft.0")).scopes();

const seen = JSON.stringify([refused, accessed, scopes]);
const EXPECTED = '["OAuth2RequestError: …invalid_grant","OAuth2RequestError: …invalid_grant",["user.info.basic","video.list"]]';
const FOUND = `["OAuth2Tokens","Error: Missing or invalid 'access_token' field",["user.info.basic,video.list"]]`;
console.log(`expected: ${EXPECTED}\nseen:     ${seen}`);
process.exit(seen === FOUND ? 0 : 1);
JS
echo "versions: node $(node --version), arctic $(node -p 'JSON.parse(fs.readFileSync("node_modules/arctic/package.json")).version')"
node refresh.mjs || { echo 'changed: see "seen"'; exit 1; }
echo 'as found'
