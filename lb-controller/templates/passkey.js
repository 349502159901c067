(() => {
const form = document.getElementById("passkey"), answer = form.elements.passkey, said = document.getElementById("said");
const bytes = text => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), c => c.charCodeAt(0));
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const options = JSON.parse(form.dataset.options), list = items => items.map(item => ({ ...item, id: bytes(item.id) }));
options.challenge = bytes(options.challenge);
if (options.user) options.user.id = bytes(options.user.id);
if (options.allowCredentials) options.allowCredentials = list(options.allowCredentials);
if (options.excludeCredentials) options.excludeCredentials = list(options.excludeCredentials);
form.addEventListener("submit", async event => {
  if (answer.value) return;
  event.preventDefault();
  said.textContent = "";
  try {
    const made = await navigator.credentials[form.dataset.call]({ publicKey: options }), r = made.response, response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"])
      if (r[name]) response[name] = text(r[name]);
    if (r.getTransports) response.transports = r.getTransports();
    answer.value = JSON.stringify({ id: made.id, rawId: text(made.rawId), type: made.type, response });
    form.submit();
  } catch (error) {
    said.textContent = error.name === "InvalidStateError" ? form.dataset.known : form.dataset.failed;
  }
});
form.hidden = false;
})();
