// A GPT in one file: open a model, cut text into tokens, predict, sample.
// The same steps as in the course, with the same names: chapter 4 builds the tokenizer, chapters 8
// and 9 the model, 8b and 9c its variants, chapter 12 the sampling. `gpt2edu_export --web` writes
// the file that `open` reads. Sizes: T time, C = n_embd, nh = n_head, hs = C / nh, V = vocab_size.
"use strict";

const gpt2edu = (() => {
  const HOME = new URL(".", document.currentScript?.src || document.baseURI);
  const AGAIN = "write it with: gpt2edu_export --web";
  class BadInput extends Error {} // what a reader can cause and mend: one line
  const need = (fine, line) => { if (!fine) throw new BadInput(line); };
  const json = (text, line) => { try { return JSON.parse(text); } catch { throw new BadInput(line); } };

  // --- The file: safetensors, 16-bit numbers, with sizes and tokenizer in its header ---
  const halves = Float32Array.from({ length: 65536 }, (_, bits) => { // every 16-bit float, by its bits
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    let value = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    if (exponent === 31) value = fraction ? NaN : Infinity;
    return bits >> 15 ? -value : value;
  });
  const wider = (bytes) => Float32Array.from(new Uint16Array(bytes), (bits) => halves[bits]);
  const READ = { F16: wider, F32: (bytes) => new Float32Array(bytes), I32: (bytes) => new Int32Array(bytes) };

  function parse(buffer, name) {
    const size = buffer.byteLength, length = size < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true));
    need(length < 2 ** 26, `${name} is not a safetensors file; ${AGAIN}`);
    need(8 + length <= size, `${name} is cut short: ${size} bytes, its header ends at ${8 + length}; copy it again`);
    const header = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
    need(/^\{.*\}\s*$/s.test(header), `${name} is not a safetensors file; ${AGAIN}`);
    const { __metadata__: metadata = {}, ...entries } = json(header, `${name}: its header is not JSON; ${AGAIN}`);
    const tensors = {};
    for (const [key, { dtype, shape, data_offsets }] of Object.entries(entries)) {
      const [from, to] = data_offsets.map((offset) => 8 + length + offset);
      need(to <= size, `${name} is cut short: ${size} bytes, ${key} ends at ${to}; copy it again`);
      need(READ[dtype], `${name}: ${key} is ${dtype}, expected F16; ${AGAIN}`);
      const data = READ[dtype](buffer.slice(from, to)), count = shape.reduce((a, b) => a * b, 1);
      need(data.length === count, `${name}: ${key} holds ${data.length} numbers, expected ${count}; copy it again`);
      tensors[key] = { shape, data };
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
      const merged = merges.map((merge) => merge.replace(" ", ""));
      const tokens = [...Array.from(letters), ...merged].map(fromPrintable);
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
  // What a block may be made of (appendix 9c). First stands GPT-2's choice, which a file need not name.
  const BLOCK = { position: ["learned", "rope"], norm: ["layer", "rms"], mlp: ["gelu", "swiglu", "relu2"],
    qk_norm: [false, true], bias: [true, false], tied: [true, false] };
  const GPT2 = Object.fromEntries(Object.entries(BLOCK).map(([field, [first]]) => [field, first]));
  const SIZES = ["n_layer", "n_head", "n_kv_head", "n_embd", "block_size", "vocab_size"];

  function normalise(x, { weight, bias }, kind) { // LayerNorm; or RMSNorm, which takes no mean off
    const mean = kind === "rms" ? 0 : x.reduce((sum, value) => sum + value, 0) / x.length;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    const scale = 1 / Math.sqrt(variance + 1e-5);
    return x.map((value, i) => (value - mean) * scale * weight[i] + (bias ? bias[i] : 0));
  }

  function linear(x, { weight, bias }) { // weight: (in, out), row by row
    const out = bias ? bias.slice() : new Float32Array(weight.length / x.length);
    for (let i = 0, at = 0; i < x.length; i++, at += out.length) {
      for (let j = 0; j < out.length; j++) out[j] += x[i] * weight[at + j];
    }
    return out;
  }

  function dot(a, b, from) { // of a, and of as many numbers of b
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[from + i];
    return sum;
  }

  function rotate(head, t) { // RoPE, in place: number i with number i + hs / 2
    for (let i = 0, half = head.length / 2; i < half; i++) {
      const angle = t * 10000 ** (-i / half), a = head[i], b = head[i + half];
      head[i] = a * Math.cos(angle) - b * Math.sin(angle);
      head[i + half] = b * Math.cos(angle) + a * Math.sin(angle);
    }
  }

  const BEND = { // what bends in the MLP
    gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    relu2: (x) => Math.max(x, 0) ** 2, swiglu: (x) => x / (1 + Math.exp(-x)), // this one of the gate
  };

  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const out = scores.map((score) => Math.exp(score - largest));
    const sum = out.reduce((a, b) => a + b, 0);
    return out.map((value) => value / sum);
  }

  class Model {
    constructor(config, tensors, tokenizer, name) {
      const c = { ...GPT2, n_kv_head: config.n_head, ...config }, C = c.n_embd, hs = C / c.n_head;
      for (const field of [...Object.keys(config), ...SIZES]) {
        const value = c[field], size = SIZES.includes(field) && Number.isInteger(value) && value > 0;
        need(BLOCK[field]?.includes?.(value) || size, `${name}: ${field}=${value} is unknown to this page; ${AGAIN}`);
      }
      need(Number.isInteger(hs), `${name}: n_head=${c.n_head} does not divide n_embd=${C}; ${AGAIN}`);
      const ids = tokenizer.tokens.length, V = c.vocab_size;
      need(ids <= V, `${name}: its tokenizer has ${ids} ids and its model ${V}; ${AGAIN}`);
      const kv = hs * c.n_kv_head, wide = c.mlp === "swiglu" ? 16 * Math.ceil(C / 6) : 4 * C;
      Object.assign(this, { config: c, hs, kv, tokenizer, name, size: 0 }); // kv: all heads of keys together
      const take = (key, ...shape) => {
        const found = tensors[`transformer.${key}`] || tensors[key];
        const got = found ? found.shape.join(" × ") : "not there", want = shape.join(" × ");
        need(got === want, `${name}: ${key} is ${got}, expected ${want}; ${AGAIN}`);
        need(found.data.every(Number.isFinite), `${name}: ${key} holds NaN or infinity; export a run that did not diverge`);
        this.size += found.data.length;
        return found.data;
      };
      const pair = (key, shape, bias = c.bias) => (
        { weight: take(`${key}.weight`, ...shape), bias: bias && take(`${key}.bias`, shape.at(-1)) });
      const norm = (key) => pair(key, [C], c.bias && c.norm === "layer");
      this.wte = take("wte.weight", V, C);
      this.wpe = c.position === "learned" && take("wpe.weight", c.block_size, C);
      this.blocks = Array.from({ length: c.n_layer }, (_, i) => `h.${i}`).map((h) => ({
        ln_1: norm(`${h}.ln_1`), ln_2: norm(`${h}.ln_2`),
        c_attn: pair(`${h}.attn.c_attn`, [C, C + 2 * kv]), c_proj: pair(`${h}.attn.c_proj`, [C, C]),
        q_norm: c.qk_norm && pair(`${h}.attn.q_norm`, [hs], false),
        k_norm: c.qk_norm && pair(`${h}.attn.k_norm`, [hs], false),
        c_gate: c.mlp === "swiglu" && pair(`${h}.mlp.c_gate`, [C, wide]),
        c_fc: pair(`${h}.mlp.c_fc`, [C, wide]), narrow: pair(`${h}.mlp.c_proj`, [wide, C]),
      }));
      this.ln_f = norm("ln_f");
      this.head = c.tied ? this.wte : take("lm_head.weight", V, C);
    }

    newCache(watch = false) { // watch: keep who looked at whom, by layer, head and position
      const rows = () => this.blocks.map(() => new Float32Array(this.config.block_size * this.kv));
      const looks = watch && this.blocks.map(() => Array.from({ length: this.config.n_head }, () => []));
      return { length: 0, keys: rows(), values: rows(), looks };
    }

    attend(qkv, { q_norm, k_norm }, cache, layer) { // qkv: (C + 2 kv,) of the newest position
      const { hs, kv, config: { n_head, n_kv_head, n_embd: C, position } } = this;
      const t = cache.length, keys = cache.keys[layer], values = cache.values[layer];
      for (let from = 0; from < C + kv; from += hs) { // each head of queries, then of keys
        const head = qkv.subarray(from, from + hs);
        if (q_norm) head.set(normalise(head, from < C ? q_norm : k_norm, "rms"));
        if (position === "rope") rotate(head, t);
      }
      keys.set(qkv.subarray(C, C + kv), t * kv);
      values.set(qkv.subarray(C + kv), t * kv);
      const out = new Float32Array(C);
      for (let head = 0, from = 0; head < n_head; head++, from += hs) {
        const query = qkv.subarray(from, from + hs);
        const group = hs * Math.floor((head * n_kv_head) / n_head); // where the keys for this head begin
        const score = (_, s) => dot(query, keys, s * kv + group) / Math.sqrt(hs);
        const weights = softmax(Float32Array.from({ length: t + 1 }, score));
        for (let s = 0, at = group; s <= t; s++, at += kv) {
          for (let i = 0; i < hs; i++) out[from + i] += weights[s] * values[at + i];
        }
        if (cache.looks) cache.looks[layer][head].push(weights);
      }
      return out;
    }

    mlp(x, { c_fc, c_gate, narrow }) {
      const bend = BEND[this.config.mlp], wide = linear(x, c_fc);
      return linear(c_gate ? linear(x, c_gate).map((gate, j) => bend(gate) * wide[j]) : wide.map(bend), narrow);
    }

    step(cache, id) { // read one token, return the logits (V,) of the next
      const { n_embd: C, vocab_size: V, block_size, norm } = this.config, t = cache.length;
      need(t < block_size, `${t + 1} tokens do not fit a context of ${block_size}; shorten the text`);
      const x = this.wte.slice(id * C, id * C + C);
      const add = (y) => { for (let i = 0; i < C; i++) x[i] += y[i]; };
      if (this.wpe) add(this.wpe.subarray(t * C, t * C + C));
      this.blocks.forEach((block, layer) => {
        const qkv = linear(normalise(x, block.ln_1, norm), block.c_attn);
        add(linear(this.attend(qkv, block, cache, layer), block.c_proj));
        add(this.mlp(normalise(x, block.ln_2, norm), block));
      });
      cache.length++;
      const last = normalise(x, this.ln_f, norm);
      return Float32Array.from({ length: V }, (_, id) => dot(last, this.head, id * C));
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
    const ranked = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    const order = ranked.slice(0, temperature < 1e-6 ? 1 : topK); // most likely first
    const probs = new Float32Array(logits.length);
    const kept = softmax(order.map((id) => (logits[id] - logits[order[0]]) / Math.max(temperature, 1e-6)));
    let before = 0, n = 0; // the probability of all that is ranked higher
    while (n < kept.length && (n === 0 || before < topP || topP >= 1)) before += kept[n++];
    for (let i = 0; i < n; i++) probs[order[i]] = kept[i] / before;
    return probs;
  }

  function pick(probs, u) { // the token in whose share of the unit interval u falls
    let right = 0;
    const found = probs.findIndex((p) => p && u < (right += p));
    return found < 0 ? Math.max(0, probs.findLastIndex((p) => p > 0)) : found;
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

  // --- Opening a model ---
  function open(buffer, name) {
    const { metadata, tensors } = parse(buffer, name);
    const about = json(metadata.gpt2edu || "{}", `${name}: its sizes are not JSON; ${AGAIN}`);
    const got = about.format || "not named";
    need(got === "gpt2edu web 1", `${name} is not an export for this page: its format is ${got}; ${AGAIN}`);
    for (const part of ["config", "tokenizer"]) need(about[part], `${name} has no ${part}; ${AGAIN}`);
    const tokenizer = new Tokenizer(about.tokenizer);
    return Object.assign(new Model(about.config, tensors, tokenizer, name), { name: about.name });
  }

  async function fetchBuffer(file) {
    const reply = await fetch(new URL(file, HOME));
    need(reply.ok, `${file} could not be loaded (${reply.status}); reload the page`);
    return reply.arrayBuffer();
  }

  let stored; // the model of the course, loaded once
  const load = () => (stored ??= fetchBuffer("tiny.safetensors").then((file) => open(file, "tiny")));

  return { BadInput, HOME, Model, Tokenizer, fetchBuffer, generate, load, odds, open, parse, pick, softmax };
})();
