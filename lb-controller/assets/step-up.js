// Sends requests as fetch() does, and when one needs more proof opens the page that asks for it, waits, and sends it again.
//
//   import { fetchWithStepUp } from "https://shop.example/.lb/step-up.js";
//   const response = await fetchWithStepUp("/refunds", { method: "POST", body });
//
// `stepUp.open(url)` shows the page in another way than in a window of its own, and returns whether it could. Where nothing
// is shown, or nothing is proved in time, the first response comes back: its `challenge_url` can be made a link.

const PROBLEM = "urn:lb:problem:step-up";

export async function fetchWithStepUp(input, { stepUp = {}, ...init } = {}) {
  const request = new Request(input, { credentials: "include", ...init });
  const again = request.clone();
  const response = await fetch(request);
  const challenge = await challengeOf(response);
  if (!challenge) return response;
  const page = (stepUp.open ?? openWindow)(new URL(challenge.challenge_url, response.url).href);
  if (!page) return response;
  const proved = await isProved(new URL(challenge.status_url, response.url), challenge.expires_in);
  return proved ? fetch(again) : response;
}

// The body is read from a copy: whoever called still wants to read it.
async function challengeOf(response) {
  const type = response.headers.get("content-type") ?? "";
  if (response.status !== 401 || !type.startsWith("application/problem+json")) return null;
  const problem = await response.clone().json();
  return problem.type === PROBLEM && problem.status_url ? problem : null;
}

function openWindow(url) {
  return window.open(url, "lb-step-up", "popup,width=480,height=640");
}

// Asked for, not told: the page cuts its tie to its opener, so that nobody can reach into it; to us it looks closed at once.
async function isProved(url, seconds) {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 700));
    const response = await fetch(url, { credentials: "include", cache: "no-store" });
    if (response.status !== 200) return false;
    if ((await response.json()).state === "proved") return true;
  }
  return false;
}
