// GPT-2 in one file: open a model, cut text into tokens, predict, sample, write.
//
// The same steps as in the course, with the same names: chapter 4 builds the tokenizer, chapters 8
// and 9 the model, chapter 12 the sampling. `gpt2edu_export --web` writes the file that `open`
// reads. Sizes: T time, C = n_embd, nh = n_head, hs = C / nh, V = vocab_size.
"use strict";

const gpt2edu = (() => {
  const HOME = new URL(".", document.currentScript?.src || document.baseURI);
  const AGAIN = "write it with: gpt2edu_export --web";

  // What a reader can cause and mend: one line.
  class BadInput extends Error {}
  const need = (fine, line) => { if (!fine) throw new BadInput(line); };

  // --- The file: safetensors, 16-bit numbers, with sizes and tokenizer in its header ---

  const halves = new Float32Array(65536); // every 16-bit float, by its bits
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    let value = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    if (exponent === 31) value = fraction ? NaN : Infinity;
    halves[bits] = bits >> 15 ? -value : value;
  }

  const READ = {
    F16: (bytes) => Float32Array.from(new Uint16Array(bytes), (bits) => halves[bits]),
    F32: (bytes) => new Float32Array(bytes),
    I32: (bytes) => new Int32Array(bytes),
  };

  function parse(buffer, name) {
    const size = buffer.byteLength;
    const length = size < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true)); // of the header
    need(length < 2 ** 26, `${name} is not a safetensors file; ${AGAIN}`);
    need(8 + length <= size, `${name} is cut short: ${size} bytes, its header ends at ${8 + length}; copy it again`);
    const header = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
    need(/^\{.*\}\s*$/s.test(header), `${name} is not a safetensors file; ${AGAIN}`);
    const { __metadata__: metadata = {}, ...entries } = JSON.parse(header);
    const tensors = {};
    for (const [key, { dtype, shape, data_offsets }] of Object.entries(entries)) {
      const [from, to] = data_offsets.map((offset) => 8 + length + offset);
      need(to <= size, `${name} is cut short: ${size} bytes, ${key} ends at ${to}; copy it again`);
      need(READ[dtype], `${name}: ${key} is ${dtype}, expected F16; ${AGAIN}`);
      tensors[key] = { shape, data: READ[dtype](buffer.slice(from, to)) };
    }
    return { metadata, tensors };
  }

  // --- The tokenizer (chapter 4). A token is kept as a string with one character per byte ---

  const EOT = "<|endoftext|>";
  const PATTERN = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s++$|\s+(?!\S)|\s`;
  // JavaScript's \s is another set of characters, and `\s++$` adds nothing to `\s+(?!\S)`.
  const SPACE = { [String.raw`|\s++$`]: "", "\\s": "\\p{White_Space}", "\\S": "\\P{White_Space}" };
  const CUT = new RegExp(PATTERN.replace(/\|\\s\+\+\$|\\s/gi, (found) => SPACE[found]), "gu");

  const visible = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const hidden = bytes.filter((b) => !visible(b));
  const letterOf = bytes.map((b) => String.fromCharCode(visible(b) ? b : 256 + hidden.indexOf(b)));
  const byteOf = new Map(letterOf.map((letter, b) => [letter, String.fromCharCode(b)]));
  const GPT2_BYTES = [...bytes.filter(visible), ...hidden].map((b) => letterOf[b]).join("");
  const fromPrintable = (text) => Array.from(text, (letter) => byteOf.get(letter)).join("");
  const toPrintable = (token) => Array.from(token, (c) => letterOf[c.charCodeAt(0)]).join("");

  class Tokenizer {
    constructor({ name, hash, pattern = PATTERN, bytes: letters = GPT2_BYTES, merges, special_tokens }) {
      need(pattern === PATTERN, `tokenizer ${name} cuts text by another pattern than GPT-2's; ${AGAIN}`);
      const tokens = Array.from(letters, fromPrintable);
      for (const merge of merges) tokens.push(fromPrintable(merge.replace(" ", "")));
      this.ranks = new Map(tokens.map((token, i) => [token, i])); // token → id; earlier is lower
      const special = special_tokens || { [EOT]: tokens.length }; // no text contains these
      for (const [token, id] of Object.entries(special)) tokens[id] = token;
      Object.assign(this, { name, hash, tokens, special, eot: special[EOT] });
    }

    pieces(text) {
      const at = text.search(/[\uD800-\uDFFF]/u); // half of a character that takes two
      need(at < 0, `the text has half a character at position ${at}, which has no bytes; delete it`);
      return text.match(CUT) || [];
    }

    encodePiece(piece) {
      const parts = Array.from(new TextEncoder().encode(piece), (b) => String.fromCharCode(b));
      for (;;) {
        let best = Infinity, where = -1; // the earliest merge that was learned
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = this.ranks.get(parts[i] + parts[i + 1]);
          if (rank < best) [best, where] = [rank, i];
        }
        if (where < 0) return parts.map((token) => this.ranks.get(token));
        parts.splice(where, 2, parts[where] + parts[where + 1]);
      }
    }

    encode(text) { return this.pieces(text).flatMap((piece) => this.encodePiece(piece)); }

    decode(ids) {
      const joined = ids.map((id) => this.tokens[id]).join("");
      return new TextDecoder().decode(Uint8Array.from(joined, (c) => c.charCodeAt(0)));
    }

    show(id) { return toPrintable(this.tokens[id]); } // where a space is Ġ
  }

  // --- The model (chapters 8 and 9): one token at a time, with a cache of keys and values ---

  function layerNorm(x, { weight, bias }) {
    const C = x.length;
    let mean = 0, variance = 0;
    for (let i = 0; i < C; i++) mean += x[i] / C;
    for (let i = 0; i < C; i++) variance += (x[i] - mean) ** 2 / C;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    return x.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
  }

  function linear(x, { weight, bias }) { // weight: (in, out), row by row
    const out = bias.slice();
    for (let i = 0, at = 0; i < x.length; i++, at += out.length) {
      const value = x[i];
      for (let j = 0; j < out.length; j++) out[j] += value * weight[at + j];
    }
    return out;
  }

  const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

  function softmax(scores) {
    let largest = -Infinity, sum = 0;
    for (const score of scores) largest = Math.max(largest, score);
    const out = scores.map((score) => Math.exp(score - largest));
    for (const value of out) sum += value;
    return out.map((value) => value / sum);
  }

  class Model {
    constructor(config, tensors, tokenizer, name) {
      Object.assign(this, { config, tokenizer, name });
      const { n_layer, n_embd: C, block_size, vocab_size: V } = config;
      this.size = 0;
      const take = (key, ...shape) => {
        const found = tensors[`transformer.${key}`];
        const got = found ? found.shape.join(" × ") : "not there";
        const want = shape.join(" × ");
        need(got === want, `${name}: ${key} is ${got}, expected ${want}; ${AGAIN}`);
        this.size += found.data.length;
        return found.data;
      };
      const pair = (key, ...shape) => (
        { weight: take(`${key}.weight`, ...shape), bias: take(`${key}.bias`, shape.at(-1)) });
      this.wte = take("wte.weight", V, C);
      this.wpe = take("wpe.weight", block_size, C);
      this.blocks = Array.from({ length: n_layer }, (_, i) => ({
        ln_1: pair(`h.${i}.ln_1`, C),
        c_attn: pair(`h.${i}.attn.c_attn`, C, 3 * C),
        c_proj: pair(`h.${i}.attn.c_proj`, C, C),
        ln_2: pair(`h.${i}.ln_2`, C),
        c_fc: pair(`h.${i}.mlp.c_fc`, C, 4 * C),
        narrow: pair(`h.${i}.mlp.c_proj`, 4 * C, C),
      }));
      this.ln_f = pair("ln_f", C);
    }

    newCache(watch = false) { // watch: keep who looked at whom, by layer, head and position
      const { n_layer, n_head, n_embd, block_size } = this.config;
      const rows = () => Array.from({ length: n_layer }, () => new Float32Array(block_size * n_embd));
      const looks = () => Array.from({ length: n_layer }, () => Array.from({ length: n_head }, () => []));
      return { length: 0, keys: rows(), values: rows(), looks: watch && looks() };
    }

    attend(qkv, cache, layer) { // qkv: (3C,) of the newest position
      const { n_head, n_embd: C } = this.config;
      const hs = C / n_head, t = cache.length, keys = cache.keys[layer], values = cache.values[layer];
      keys.set(qkv.subarray(C, 2 * C), t * C);
      values.set(qkv.subarray(2 * C), t * C);
      const out = new Float32Array(C);
      for (let head = 0, from = 0; head < n_head; head++, from += hs) {
        const scores = new Float32Array(t + 1);
        for (let s = 0; s <= t; s++) {
          let sum = 0;
          for (let i = from; i < from + hs; i++) sum += qkv[i] * keys[s * C + i];
          scores[s] = sum / Math.sqrt(hs);
        }
        const weights = softmax(scores);
        for (let s = 0; s <= t; s++) {
          for (let i = from; i < from + hs; i++) out[i] += weights[s] * values[s * C + i];
        }
        if (cache.looks) cache.looks[layer][head].push(weights);
      }
      return out;
    }

    step(cache, id) { // read one token, return the logits (V,) of the next
      const { n_embd: C, vocab_size: V, block_size } = this.config, t = cache.length;
      need(t < block_size, `${t + 1} tokens do not fit a context of ${block_size}; shorten the text`);
      let x = this.wte.slice(id * C, id * C + C);
      const add = (y) => { for (let i = 0; i < C; i++) x[i] += y[i]; };
      add(this.wpe.subarray(t * C, t * C + C));
      this.blocks.forEach((block, layer) => {
        add(linear(this.attend(linear(layerNorm(x, block.ln_1), block.c_attn), cache, layer), block.c_proj));
        add(linear(linear(layerNorm(x, block.ln_2), block.c_fc).map(gelu), block.narrow));
      });
      cache.length++;
      x = layerNorm(x, this.ln_f);
      const logits = new Float32Array(V);
      for (let id = 0, at = 0; id < V; id++) {
        let sum = 0;
        for (let i = 0; i < C; i++, at++) sum += x[i] * this.wte[at];
        logits[id] = sum;
      }
      return logits;
    }

    encodePrompt(prompt) { // as every story of the training text begins
      const ids = [this.tokenizer.eot, ...this.tokenizer.encode(prompt)];
      const n = ids.length, longest = this.config.block_size;
      need(n <= longest, `the text has ${n} tokens and the context holds ${longest}; shorten it by ${n - longest}`);
      return ids;
    }

    forward(ids, cache = this.newCache()) { return ids.map((id) => this.step(cache, id)); } // (T, V)
  }

  // --- Sampling (chapter 12) ---

  function odds(logits, { temperature = 1, topK = Infinity, topP = 1 } = {}) { // sum to 1
    let order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b); // most likely first
    const probs = new Float32Array(logits.length);
    if (temperature < 1e-6) order = order.slice(0, 1);
    order = order.slice(0, topK);
    const kept = softmax(order.map((id) => (logits[id] - logits[order[0]]) / Math.max(temperature, 1e-6)));
    let before = 0, n = 0; // the probability of all that is ranked higher
    while (n < kept.length && (n === 0 || before < topP || topP >= 1)) before += kept[n++];
    for (let i = 0; i < n; i++) probs[order[i]] = kept[i] / before;
    return probs;
  }

  function pick(probs, u) { // the token in whose share of the unit interval u falls
    let right = 0, last = 0;
    for (let id = 0; id < probs.length; id++) {
      if (!probs[id]) continue;
      right += probs[id];
      last = id;
      if (u < right) break;
    }
    return last;
  }

  function* generate(model, prompt, { maxTokens = 120, random = Math.random, ...knobs } = {}) {
    const cache = model.newCache();
    let logits = model.forward(model.encodePrompt(prompt), cache).at(-1);
    for (let n = 0; n < maxTokens; n++) {
      const id = pick(odds(logits, knobs), random());
      if (Object.values(model.tokenizer.special).includes(id)) return;
      yield id;
      if (cache.length === model.config.block_size) return;
      logits = model.step(cache, id);
    }
  }

  // --- Opening a model, and writing into a page ---

  function open(buffer, name) {
    const { metadata, tensors } = parse(buffer, name);
    const about = JSON.parse(metadata.gpt2edu || "{}");
    const got = about.format || "not named";
    need(got === "gpt2edu web 1", `${name} is not an export for this page: its format is ${got}; ${AGAIN}`);
    const model = new Model(about.config, tensors, new Tokenizer(about.tokenizer), name);
    return Object.assign(model, { name: about.name });
  }

  async function fetchBuffer(file) {
    const reply = await fetch(new URL(file, HOME));
    need(reply.ok, `${file} could not be loaded (${reply.status}); reload the page`);
    return reply.arrayBuffer();
  }

  let stored; // the model of the course, loaded once
  const load = () => (stored ??= fetchBuffer("tiny.safetensors").then((file) => open(file, "tiny")));

  // Let the model continue a prompt inside an element, token by token; resolves to the whole text.
  async function write(element, prompt, { model, signal, delay = 70, temperature = 0.8, ...options } = {}) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    model ??= await load();
    const ids = [];
    element.textContent = prompt;
    for (const id of generate(model, prompt, { temperature, ...options })) {
      ids.push(id);
      element.textContent = prompt + model.tokenizer.decode(ids);
      if (delay && !still) await new Promise((done) => setTimeout(done, delay));
      if (signal && signal.aborted) break;
    }
    return element.textContent;
  }

  return { BadInput, HOME, Model, Tokenizer, fetchBuffer, generate, load, odds, open, parse, pick, softmax, write };
})();
