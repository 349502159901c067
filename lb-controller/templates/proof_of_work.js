(() => {
const form = document.getElementById("work"), { puzzle, bits } = form.dataset;
const H = [], K = [], fraction = x => (x - Math.floor(x)) * 4294967296 | 0;
for (let p = 2; K.length < 64; p++) {
  let q = 2;
  while (q * q <= p && p % q) q++;
  if (q * q <= p) continue;
  if (H.length < 8) H.push(fraction(Math.sqrt(p)));
  K.push(fraction(Math.cbrt(p)));
}
const w = new Int32Array(64), turn = (x, n) => x >>> n | x << 32 - n;
// One block of SHA-256 (FIPS 180-4 §6.2.2).
const block = (s, bytes) => {
  for (let i = 0; i < 16; i++) w[i] = bytes[4 * i] << 24 | bytes[4 * i + 1] << 16 | bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
  for (let i = 16; i < 64; i++) {
    const a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >>> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >>> 10);
  }
  let a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
  for (let i = 0; i < 64; i++) {
    const t = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (e & f ^ ~e & g) + K[i] + w[i] | 0;
    const u = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + (a & b ^ a & c ^ b & c) | 0;
    h = g; g = f; f = e; e = d + t | 0; d = c; c = b; b = a; a = t + u | 0;
  }
  return [a + s[0] | 0, b + s[1] | 0, c + s[2] | 0, d + s[3] | 0, e + s[4] | 0, f + s[5] | 0, g + s[6] | 0, h + s[7] | 0];
};
// The puzzle is longer than a block: the first one is hashed once.
const text = new TextEncoder().encode(puzzle + ":"), first = block(H, text), rest = text.slice(64);
const bar = form.querySelector("progress"), expected = 2 ** bits;
let count = 0;
const work = () => {
  for (const until = count + 20000; count < until; count++) {
    const digits = String(count), bytes = new Uint8Array(64), length = rest.length + digits.length;
    bytes.set(rest);
    for (let i = 0; i < digits.length; i++) bytes[rest.length + i] = digits.charCodeAt(i);
    bytes[length] = 128;
    new DataView(bytes.buffer).setUint32(60, (64 + length) * 8);
    if (Math.clz32(block(first, bytes)[0]) >= bits) {
      form.elements.work.value = puzzle + ":" + count;
      return form.submit();
    }
  }
  bar.value = 1 - Math.exp(-count / expected);
  setTimeout(work);
};
work();
})();
