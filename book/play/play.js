// The playground: six tools around the model of gpt2edu.js. Each `<div class="play" data-play=…>`
// of a page becomes one, and what stood in it (a sentence, a figure) goes. Nothing leaves the page.
"use strict";

const play = (() => {
  const { BadInput } = gpt2edu;
  const need = (fine, line) => {
    if (!fine) throw new BadInput(line);
  };
  const percent = (p) =>
    p >= 0.0995
      ? `${(100 * p).toFixed(0)} %`
      : p >= 0.0005
        ? `${(100 * p).toFixed(1)} %`
        : p
          ? "< 0.1 %"
          : "0";
  const nats = (x) => x.toFixed(3);
  const whole = (n) => n.toLocaleString("en");
  const many = (n, thing) => `${whole(n)} ${thing}${n === 1 ? "" : "s"}`;
  let counter = 0;

  // Make an element: h("p", { class: "note", onclick: f }, "text", child, …)
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key.startsWith("--")) element.style.setProperty(key, value);
      else if (value !== false && value !== undefined)
        element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  const labelled = (text, input, ...more) => {
    input.id = `play-${++counter}`;
    return h("div", { class: "play-field" }, h("label", { for: input.id }, text), input, ...more);
  };
  const area = (value, rows = 3) => {
    const element = h("textarea", { rows, spellcheck: "false", autocomplete: "off" });
    element.value = value;
    return element;
  };
  const choice = (options) =>
    h("select", {}, ...options.map(([value, text]) => h("option", { value }, text)));
  const bar = (share, kind) =>
    h("span", { class: `play-bar ${kind}`, "--share": share, "aria-hidden": "true" });

  // A slider that says its value beside its name.
  function slider(text, min, max, step, value, say = String) {
    const input = h("input", { type: "range", min, max, step, value });
    const shown = h("output", {});
    const show = () => {
      shown.textContent = say(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", show);
    show();
    const field = labelled(text, input);
    input.before(shown);
    return { input, show, field };
  }

  // --- What all tools share: the model, the stored data, one line for what went wrong ---

  const shared = { model: null, data: null, gpt2: null };
  const json = (file) =>
    gpt2edu.fetchBuffer(file).then((buffer) => JSON.parse(new TextDecoder().decode(buffer)));
  const once = (key, make) => (shared[key] ??= make());
  const data = () => once("data", () => json("play.json"));
  const model = () => once("model", () => gpt2edu.load());
  const cutter = () =>
    shared.model
      ? shared.model.then((m) => m.tokenizer)
      : once("cutter", () => json("tokenizer.json").then((saved) => new gpt2edu.Tokenizer(saved)));
  const gpt2 = () =>
    once("gpt2", async () => {
      const text = new TextDecoder().decode(await gpt2edu.fetchBuffer("gpt2.bpe"));
      return new gpt2edu.Tokenizer({ name: "gpt2", merges: text.split("\n").slice(1, -1) });
    });

  function say(box, line = "") {
    const place = box.querySelector(".play-error");
    place.textContent = line;
    place.hidden = !line;
  }

  async function guarded(box, work) {
    try {
      say(box);
      return await work();
    } catch (e) {
      if (!(e instanceof BadInput)) console.warn(e);
      say(
        box,
        e instanceof BadInput
          ? e.message
          : `this could not be computed (${e.message}); reload the page`,
      );
    }
  }

  async function take(box, file) {
    // a reader's own model, for every tool of the page
    await guarded(box, async () => {
      const buffer = await file.arrayBuffer();
      let opened;
      try {
        opened = gpt2edu.open(buffer, file.name);
      } catch (e) {
        throw e instanceof BadInput
          ? e
          : new BadInput(
              `${file.name} could not be read (${e.message}); write it with: gpt2edu_export --web`,
            );
      }
      shared.model = Promise.resolve(opened);
      document.dispatchEvent(new Event("play-model"));
    });
  }

  function footer(box) {
    // which model, and a way to change it
    const input = h("input", {
      type: "file",
      accept: ".safetensors",
      class: "play-file",
      onchange: () => input.files[0] && take(box, input.files[0]),
    });
    const line = h("span", { class: "play-model" });
    input.id = `play-${++counter}`;
    box.append(
      h(
        "p",
        { class: "play-foot" },
        line,
        " ",
        h("label", { for: input.id }, "Use your own model:"),
        " ",
        input,
      ),
    );
    box.addEventListener("dragover", (e) => e.preventDefault());
    box.addEventListener("drop", (e) => {
      e.preventDefault();
      if (e.dataTransfer.files[0]) take(box, e.dataTransfer.files[0]);
    });
    return async () => {
      const { name, size, config: c } = await model();
      line.textContent = `Model: ${name}, ${whole(size)} parameters, ${c.n_layer} layers, ${c.n_head} heads, context ${c.block_size}.`;
    };
  }

  const tokenText = (tokenizer, id) => tokenizer.show(id);

  // --- (a) Tokenizer: text, pieces, ids ---

  function tokenizer(box) {
    const input = area("Once upon a time, Anna had two cherries. It's 1999!");
    const both = h("input", { type: "checkbox" });
    const out = h("div", { class: "play-out", "aria-live": "polite" });
    box.append(
      labelled("Your text", input),
      h("div", { class: "play-check" }, labelled("beside it, GPT-2's 50,257 tokens", both)),
      out,
    );

    const row = (t, text) => {
      const pieces = t.pieces(text).map((piece) => t.encodePiece(piece));
      const n = pieces.flat().length,
        size = new TextEncoder().encode(text).length;
      const rate = n ? `, ${(size / n).toFixed(2)} bytes a token` : "";
      return h(
        "div",
        { class: "play-cut", "data-tokenizer": t.name, "data-ids": pieces.flat().join(" ") },
        h(
          "p",
          {},
          h("strong", {}, t.name === "gpt2" ? "GPT-2" : `Tokenizer ${t.name}`),
          `: ${whole(t.tokens.length)} ids. ${many(pieces.length, "piece")}, ${many(n, "token")} for ${many(size, "byte")}${rate}.`,
        ),
        h(
          "div",
          { class: "play-pieces" },
          ...pieces.map((ids) =>
            h(
              "span",
              { class: "play-piece" },
              ...ids.map((id) =>
                h("span", { class: "play-token" }, tokenText(t, id), h("small", {}, String(id))),
              ),
            ),
          ),
        ),
      );
    };
    return () =>
      guarded(box, async () => {
        const text = input.value;
        need(text, "the text is empty; type a word");
        need(
          text.length <= 2000,
          `the text has ${whole(text.length)} characters; this tool shows 2,000 at most`,
        );
        const cutters = [await cutter(), ...(both.checked ? [await gpt2()] : [])];
        out.replaceChildren(...cutters.map((t) => row(t, text)));
      });
  }

  // --- (b) Next token: the model's odds, the bigram's, the exact ones ---

  // A bigram as chapter 2 builds it: counts of pairs, leaning on the counts of single tokens.
  function bigramOf(pairs, V) {
    const rows = new Map(),
      single = new Float64Array(V);
    let total = 0;
    for (const [first, second, n] of pairs) {
      if (!rows.has(first)) rows.set(first, []);
      rows.get(first).push([second, n]);
      single[second] += n;
      total += n;
    }
    const base = single.map((n) => (n + 1 / V) / (total + 1));
    return (id) => {
      const row = rows.get(id) || [];
      const seen = row.reduce((sum, [, n]) => sum + n, 0);
      const probs = base.map((p) => p / (seen + 1));
      for (const [second, n] of row) probs[second] += n / (seen + 1);
      return probs;
    };
  }

  function next(box) {
    const story = choice([]);
    const own = area("One day, Mia and Ben were in the park. Mia had a ball. She gave the ball to");
    const ownField = labelled("Your text", own);
    const strip = h("div", { class: "play-strip" });
    const at = slider("After token", 0, 1, 1, 0);
    const table = h("table", { class: "play-odds" });
    const sum = h("p", { class: "play-sum" });
    const spot = h("p", { class: "play-sum", "aria-live": "polite" });
    box.append(
      labelled("Text", story),
      ownField,
      sum,
      strip,
      at.field,
      spot,
      h("div", { class: "play-scroll" }, table),
    );
    let read = null;

    async function compute() {
      const [m, d] = [await model(), await data()];
      const t = m.tokenizer,
        known = t.hash === d.tokenizer;
      if (!story.options.length) {
        d.stories.forEach((s, i) =>
          story.append(h("option", { value: i }, `story ${i + 1}: ${s.text.slice(0, 34)} …`)),
        );
        story.append(h("option", { value: "own" }, "your own text"));
      }
      ownField.hidden = story.value !== "own";
      if (!known && story.value !== "own") own.value = d.stories[story.value].text;
      const stored = known && story.value !== "own" ? d.stories[story.value] : null;
      if (!stored) need(own.value, "the text is empty; type a word");
      const ids = stored ? [t.eot, ...stored.ids] : m.encodePrompt(own.value);
      const positions = stored ? ids.slice(0, -1) : ids;
      const sparse = (list) =>
        list.reduce(
          (probs, [id, p]) => ((probs[id] = p), probs),
          new Float32Array(m.config.vocab_size),
        );
      const columns = { model: m.forward(positions).map((logits) => gpt2edu.softmax(logits)) };
      if (known) columns.bigram = positions.map(bigramOf(d.pairs, m.config.vocab_size));
      if (stored) columns.exact = stored.exact.map(sparse);
      read = { t, ids, positions, columns };
      const loss = (name) => {
        const losses = ids.slice(1).map((id, i) => -Math.log(columns[name][i][id]));
        return losses.reduce((a, b) => a + b, 0) / losses.length;
      };
      const names = { model: "the model", bigram: "the bigram", exact: "the exact odds" };
      sum.textContent =
        `Mean loss on this text, in nats per token: ${Object.keys(columns)
          .map((name) => `${names[name]} ${nats(loss(name))}`)
          .join(", ")}.` +
        (stored
          ? " The stronger a token's colour, the more the model's odds for what follows it differ from the exact ones."
          : " The stronger a token's colour, the more what follows it surprises the model. The exact odds are known for the stored stories.");
      read.lost = positions.map((_, i) =>
        stored
          ? stored.exact[i].reduce(
              (kl, [id, p]) => kl + p * Math.log(p / Math.max(columns.model[i][id], 1e-9)),
              0,
            )
          : i + 1 < ids.length
            ? -Math.log(columns.model[i][ids[i + 1]])
            : 0,
      );
      strip.replaceChildren(
        ...positions.map((id, i) =>
          h(
            "button",
            {
              type: "button",
              tabindex: "-1",
              class: "play-token",
              "--weight": Math.min(1, read.lost[i] / (stored ? 0.5 : 4)),
              title: `${nats(read.lost[i])} nats`,
              onclick: () => {
                at.input.value = i;
                at.show();
                show();
              },
            },
            tokenText(t, id),
          ),
        ),
      );
      at.input.max = positions.length - 1;
      if (Number(at.input.value) > positions.length - 1 || !at.input.dataset.moved)
        at.input.value = read.lost.indexOf(Math.max(...read.lost));
      at.show();
      show();
    }

    function show() {
      if (!read) return;
      const { t, ids, positions, columns, lost } = read,
        i = Number(at.input.value);
      [...strip.children].forEach((token, j) => token.classList.toggle("play-here", j === i));
      const found = Object.values(columns).map((column) => column[i]);
      const best = new Set(
        found.flatMap((probs) =>
          Array.from(probs.keys())
            .sort((a, b) => probs[b] - probs[a])
            .slice(0, 6),
        ),
      );
      const key = columns.exact ? columns.exact[i] : columns.model[i];
      const order = [...best]
        .sort((a, b) => key[b] - key[a] || columns.model[i][b] - columns.model[i][a])
        .slice(0, 10);
      const largest = Math.max(...order.flatMap((id) => found.map((probs) => probs[id])));
      const cell = (probs, id, kind) =>
        h("td", {}, bar(probs[id] / largest, kind), percent(probs[id]));
      const heads = { model: "model", bigram: "bigram", exact: "exact" };
      table.replaceChildren(
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "next token"),
            ...Object.keys(columns).map((k) => h("th", { scope: "col" }, heads[k])),
          ),
        ),
        h(
          "tbody",
          {},
          ...order.map((id) =>
            h(
              "tr",
              { class: id === ids[i + 1] ? "play-true" : "" },
              h(
                "th",
                { scope: "row" },
                tokenText(t, id),
                id === ids[i + 1]
                  ? h(
                      "small",
                      {
                        title: "follows in the text",
                        role: "img",
                        "aria-label": "follows in the text",
                      },
                      " ✓",
                    )
                  : "",
              ),
              ...Object.keys(columns).map((k) => cell(columns[k][i], id, k)),
            ),
          ),
        ),
      );
      spot.textContent =
        `After “${t.decode(positions.slice(Math.max(0, i - 3), i + 1)).replace("<|endoftext|>", "the start: ")}”` +
        (columns.exact ? `: the model loses ${nats(lost[i])} nats to the exact odds here.` : ".");
    }
    at.input.addEventListener("input", () => {
      at.input.dataset.moved = "yes";
      show();
    });
    return () => guarded(box, compute);
  }

  // --- (c) Sampling: knobs over the live distribution ---

  function sampling(box) {
    const prompt = area("One day, Mia and Ben were", 2);
    const temperature = slider("Temperature", 0, 2, 0.05, 0.8, (x) =>
      x ? x.toFixed(2) : "0: the most likely",
    );
    const topK = slider("Top-k", 1, 51, 1, 51, (x) => (x > 50 ? "all" : String(x)));
    const topP = slider("Top-p", 0.05, 1, 0.05, 1, (x) => (x < 1 ? x.toFixed(2) : "all"));
    const story = h("p", { class: "play-story", "aria-live": "off" });
    const bars = h("table", { class: "play-odds play-sampling" });
    const count = h("p", { class: "play-sum" });
    const button = (text, onclick) =>
      h("button", { type: "button", class: "play-button", onclick }, text);
    let cache = null,
      logits = null,
      written = [],
      over = false,
      writing = 0;

    const knobs = () => ({
      temperature: Number(temperature.input.value),
      topK: topK.input.value > 50 ? Infinity : Number(topK.input.value),
      topP: Number(topP.input.value),
    });
    const start = async () => {
      const m = await model();
      writing++;
      logits = null; // until the prompt has been read
      const ids = m.encodePrompt(prompt.value);
      written = [];
      over = false;
      cache = m.newCache();
      logits = m.forward(ids, cache).at(-1);
      await show();
    };
    // Take a token; false at the end. The last one that fits is written, but nothing follows it.
    const append = async (id) => {
      const m = await model();
      need(logits, "the prompt has not been read; change it, and start again");
      const full = `the context of ${m.config.block_size} tokens is full; start again`;
      need(!over, full);
      if (Object.values(m.tokenizer.special).includes(id)) return false;
      written.push(id);
      over = cache.length === m.config.block_size;
      if (!over) logits = m.step(cache, id);
      await show();
      need(!over, full);
      return true;
    };
    const one = () =>
      guarded(box, async () => {
        need(logits, "the prompt has not been read; change it, and start again");
        const more = await append(gpt2edu.pick(gpt2edu.odds(logits, knobs()), Math.random()));
        if (!more) count.textContent = "The model has ended its story. Start again for another.";
        return more;
      });
    const write = async () => {
      await guarded(box, start);
      const mine = ++writing;
      while (mine === writing && logits && (await one()))
        await new Promise((done) => setTimeout(done, 40));
    };
    async function show() {
      const m = await model(),
        t = m.tokenizer;
      story.replaceChildren(h("span", {}, prompt.value), h("strong", {}, t.decode(written)));
      const plain = gpt2edu.softmax(logits),
        kept = gpt2edu.odds(logits, knobs());
      const order = Array.from(plain.keys())
        .sort((a, b) => plain[b] - plain[a])
        .slice(0, 10);
      count.textContent = `${whole(kept.filter((p) => p > 0).length)} of ${whole(plain.length)} tokens can follow. Choose one yourself, or let the model draw.`;
      bars.replaceChildren(
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["next token", "model", "after the knobs"].map((text) =>
              h("th", { scope: "col" }, text),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          ...order.map((id) =>
            h(
              "tr",
              { class: kept[id] ? "" : "play-gone" },
              h(
                "th",
                { scope: "row" },
                h(
                  "button",
                  {
                    type: "button",
                    class: "play-token",
                    onclick: () => guarded(box, () => append(id)),
                  },
                  tokenText(t, id),
                ),
              ),
              h("td", {}, bar(plain[id], "bigram"), percent(plain[id])),
              h("td", {}, bar(kept[id], "model"), percent(kept[id])),
            ),
          ),
        ),
      );
    }
    box.append(
      labelled("Prompt", prompt),
      h("div", { class: "play-knobs" }, temperature.field, topK.field, topP.field),
      h(
        "div",
        { class: "play-buttons" },
        button("Write a story", write),
        button("One token", one),
        button("Stop", () => {
          writing++;
        }),
        button("Start again", () => guarded(box, start)),
      ),
      story,
      count,
      h("div", { class: "play-scroll" }, bars),
    );
    for (const knob of [temperature, topK, topP])
      knob.input.addEventListener("input", () => logits && show());
    return () => guarded(box, start);
  }

  // --- (d) Attention: who looks at whom ---

  function attention(box) {
    const input = area(
      "One morning, Grace was at the harbour with Felix. Grace had a cup. She put the cup on the bench. Grace was tired, so",
      4,
    );
    const heads = h("fieldset", { class: "play-heads" });
    const strip = h("div", {
      class: "play-strip",
      role: "group",
      "aria-label": "Tokens: choose the one that looks",
    });
    const line = h("p", { class: "play-sum", "aria-live": "polite" });
    const table = h("table", { class: "play-odds" });
    box.append(
      labelled("Your text", input),
      heads,
      strip,
      line,
      h("div", { class: "play-scroll" }, table),
    );
    let read = null,
      from = null,
      chosen = "0.2";

    async function compute() {
      const m = await model();
      need(input.value, "the text is empty; type a few words");
      const ids = m.encodePrompt(input.value),
        cache = m.newCache(true);
      m.forward(ids, cache);
      read = { m, ids, looks: cache.looks };
      const { n_layer, n_head } = m.config;
      if (!read.looks[chosen.split(".")[0]] || chosen.split(".")[1] >= n_head) chosen = "0.0";
      const name = `play-${++counter}`;
      heads.replaceChildren(
        h("legend", {}, "layer.head"),
        ...Array.from({ length: n_layer * n_head }, (_, k) => {
          const value = `${Math.floor(k / n_head)}.${k % n_head}`;
          const radio = h("input", {
            type: "radio",
            name,
            value,
            checked: value === chosen,
            onchange: () => {
              chosen = value;
              show();
            },
          });
          return h("label", {}, radio, ` ${value}`);
        }),
      );
      if (from === null || from >= ids.length) from = ids.length - 1;
      const look = (i) => () => {
        from = i;
        show();
      };
      strip.replaceChildren(
        ...ids.map((id, i) =>
          h(
            "button",
            {
              type: "button",
              class: "play-token",
              onmouseenter: look(i),
              onfocus: look(i),
              onclick: look(i),
            },
            tokenText(m.tokenizer, id),
          ),
        ),
      );
      strip.onkeydown = (e) => {
        const move = { ArrowRight: 1, ArrowLeft: -1, Home: -ids.length, End: ids.length }[e.key];
        if (!move) return;
        e.preventDefault();
        strip.children[Math.max(0, Math.min(ids.length - 1, from + move))].focus();
      };
      show();
    }

    function show() {
      const { m, ids, looks } = read,
        t = m.tokenizer;
      const [layer, head] = chosen.split(".").map(Number);
      const weights = looks[layer][head][from];
      [...strip.children].forEach((token, j) => {
        token.style.setProperty("--weight", j <= from ? weights[j] : 0);
        token.classList.toggle("play-here", j === from);
        token.classList.toggle("play-later", j > from);
        token.tabIndex = j === from ? 0 : -1; // Tab enters the strip once, arrows move in it
      });
      const top = (row, n) =>
        Array.from(row.keys())
          .sort((a, b) => row[b] - row[a])
          .slice(0, n);
      const named = (row, j) => `${tokenText(t, ids[j])} (${j}) ${percent(row[j])}`;
      line.textContent = `Head ${chosen}: ${tokenText(t, ids[from])} (${from}) looks at ${top(
        weights,
        4,
      )
        .map((j) => named(weights, j))
        .join(", ")}.`;
      table.replaceChildren(
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["head", "looks most at, then at"].map((text) => h("th", { scope: "col" }, text)),
          ),
        ),
        h(
          "tbody",
          {},
          ...looks.flatMap((heads, l) =>
            heads.map((rows, k) => {
              const [first, second] = top(rows[from], 2);
              return h(
                "tr",
                { class: l === layer && k === head ? "play-true" : "" },
                h("th", { scope: "row" }, `${l}.${k}`),
                h(
                  "td",
                  {},
                  bar(rows[from][first], "model"),
                  named(rows[from], first),
                  second === undefined ? "" : `, ${named(rows[from], second)}`,
                ),
              );
            }),
          ),
        ),
      );
    }
    return () => guarded(box, compute);
  }

  // --- (e) Training: the curve of a run, and what it wrote on the way ---

  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  function training(box) {
    const prompt = choice([]);
    const text = h("p", { class: "play-story", "aria-live": "polite" });
    const figure = h("div", { class: "play-curve" });
    const made = h("p", { class: "play-sum" });
    let d = null,
      step = null;

    function show() {
      const { steps, prompts, train, val, bigram, floor } = d.training;
      const i = Number(step.input.value),
        now = steps[i];
      const { prompt: begin, texts } = prompts[prompt.value];
      text.replaceChildren(h("span", {}, begin), h("strong", {}, texts[i]));
      const first = [0, d.loss.presets.tiny.first];
      const x = (s) => 30 + (400 * s) / steps.at(-1),
        y = (loss) => 190 - (170 * loss) / 7;
      const line = (points) =>
        points
          .map(([s, loss], k) => `${k ? "L" : "M"}${x(s).toFixed(1)} ${y(loss).toFixed(1)}`)
          .join("");
      const level = (loss, name, kind) => [
        svg("line", { x1: 30, x2: 430, y1: y(loss), y2: y(loss), class: `play-level ${kind}` }),
        svg(
          "text",
          { x: 430, y: y(loss) + (kind === "exact" ? 13 : -5), "text-anchor": "end" },
          `${name} ${nats(loss)}`,
        ),
      ];
      const at = [first, ...train].findLast(([s]) => s <= now);
      figure.replaceChildren(
        svg(
          "svg",
          {
            viewBox: "0 0 440 232",
            role: "img",
            "aria-label": `Training loss by step, from ${first[1]} to ${nats(train.at(-1)[1])}; at step ${now} it is ${nats(at[1])}`,
          },
          ...[0, 2, 4, 6].flatMap((loss) => [
            svg("line", { x1: 30, x2: 430, y1: y(loss), y2: y(loss), class: "play-grid" }),
            svg("text", { x: 24, y: y(loss) + 4, "text-anchor": "end" }, String(loss)),
          ]),
          ...[0, 200, 400, 600].map((s) =>
            svg("text", { x: x(s), y: 207, "text-anchor": "middle" }, String(s)),
          ),
          svg(
            "text",
            { x: 230, y: 227, "text-anchor": "middle" },
            "loss in nats per token, by step",
          ),
          ...level(bigram, "bigram", "bigram"),
          ...level(floor, "floor", "exact"),
          svg("path", { d: line([first, ...train]), class: "play-line" }),
          ...val.map(([s, loss]) =>
            svg("circle", { cx: x(s), cy: y(loss), r: 4, class: "play-val" }),
          ),
          svg("line", { x1: x(now), x2: x(now), y1: 12, y2: 190, class: "play-now" }),
          svg("circle", { cx: x(now), cy: y(at[1]), r: 5, class: "play-dot" }),
        ),
      );
      made.textContent = `Step ${now}: training loss ${nats(at[1])} ${now ? "(mean of the last ten steps)" : "(expected before training)"}; dots are validation. Run: ${d.made.command}, ${d.made.hardware}, commit ${d.made.commit}.`;
    }
    return () =>
      guarded(box, async () => {
        if (d) return;
        d = await data();
        d.training.prompts.forEach((p, i) =>
          prompt.append(h("option", { value: i }, `${p.prompt} …`)),
        );
        step = slider("Training step", 0, d.training.steps.length - 1, 1, 0, (i) =>
          String(d.training.steps[i]),
        );
        for (const input of [prompt, step.input])
          input.addEventListener("input", (e) => {
            e.stopPropagation();
            show();
          });
        box
          .querySelector(".play-error")
          .before(labelled("Prompt", prompt), step.field, figure, text, made);
        show();
      });
  }

  // --- (f) Loss: is it right? ---

  // What "Is my loss right?" says of a loss: whether it is fine, in one line, and where to read on.
  function verdict({ presets, bands, unigram, bigram, floor }, preset, kind, step, loss) {
    const { ln_v, first, steps } = presets[preset],
      stories = !preset.startsWith("gpt2");
    const is = (fine, line, where) => ({ fine, line, where });
    const near = (x, y, by) => Math.abs(x - y) <= by;
    if (Number.isNaN(loss))
      return is(
        false,
        "nan: the learning rate is too high, gradients are not clipped, or fp16 runs without a scaler. Try a lower peak.",
        "symptoms",
      );
    const k = Math.round(loss / first);
    if (step <= 1) {
      if (near(loss, first, 0.1))
        return is(
          true,
          `right: ln V is ${ln_v}, and a new model's logits cost a little more; expected ${first}.`,
          "start",
        );
      if (k >= 2 && near(loss / k, first, 0.05))
        return is(
          false,
          `${k} times the expected ${first}: the losses of ${k} pieces are added, not divided by ${k}.`,
          "symptoms",
        );
      if (loss > first)
        return is(
          false,
          `too high, expected ${first}: the weights are too large; is the initialisation called? The standard deviation of wte should be 0.02.`,
          "symptoms",
        );
      if (near(loss, ln_v, 0.02))
        return is(
          false,
          `exactly ln V: all logits are equal, so the output matrix is zero. The standard deviation of wte should be 0.02.`,
          "symptoms",
        );
      return is(
        false,
        `too low, expected ${first}: a new model knows nothing, so it sees the answer. Are the targets shifted? Decode x[0] and y[0].`,
        "symptoms",
      );
    }
    if (stories && loss < floor - 0.03)
      return is(
        false,
        `below the floor of ${floor}, which no model can beat: the targets are not shifted, or the batch never changes. Decode two batches.`,
        "symptoms",
      );
    const late = () => {
      if (loss > ln_v + 0.3)
        return is(
          false,
          `above ln V = ${ln_v}, worse than guessing: the rate is too high, or the ids are another tokenizer's; compare the hashes in the manifests.`,
          "symptoms",
        );
      if (near(loss, ln_v, 0.3))
        return is(
          false,
          `still at ln V = ${ln_v}: nothing is learned. The optimiser holds other parameters, step is not called, or the rate is 0. Overfit one batch.`,
          "symptoms",
        );
      if (stories && near(loss, unigram, 0.25))
        return is(
          false,
          `stuck near the unigram loss of ${unigram}: the gradient is not reset, or the rate is too high. Try a tenth of it.`,
          "symptoms",
        );
      if (stories && near(loss, bigram, 0.15))
        return is(
          false,
          `stuck near the bigram loss of ${bigram}: no token sees the past. Attention's output is not added, or positions are missing.`,
          "symptoms",
        );
    };
    if (preset === "tiny") {
      const rows =
        kind === "val" && bands.val.some(([s]) => s === step)
          ? bands.val.filter(([s]) => s === step)
          : bands.train;
      const last = Math.min(step, rows.at(-1)[0]);
      const before = rows.findLast(([s]) => s <= last) || [1, ln_v, first + 0.1],
        after = rows.find(([s]) => s >= last);
      const room = rows === bands.train && kind === "val" ? 0.13 : 0.05; // validation judges only the second half of a window
      const low = Math.min(before[1], after[1]) - room,
        high = Math.max(before[2], after[2]) + 0.05;
      const range = `${low.toFixed(2)} to ${high.toFixed(2)}`;
      if (step > steps && loss < low)
        return is(
          null,
          `possible: the preset ends at step ${steps}, and no run of ours went on from there. No model gets under the floor of ${floor}.`,
          "tiny",
        );
      if (loss > high)
        return (
          late() ||
          is(
            false,
            `higher than in any of our six runs at this step (${range}): compare batch size, learning rate and data with the preset's.`,
            "tiny",
          )
        );
      if (loss < low)
        return is(
          false,
          `lower than in any of our six runs at this step (${range}): a loss that is too good. Is the causal mask there? Change the last token: no earlier logit may move.`,
          "symptoms",
        );
      return is(
        true,
        `right: our six runs had ${range} here.${step > steps ? ` The preset ends at step ${steps}.` : ""}`,
        "tiny",
      );
    }
    const stuck = step > 100 && late();
    if (stuck) return stuck;
    if (stories)
      return is(
        null,
        `possible: between the floor ${floor} and ln V ${ln_v}. No curve of this preset is stored; the bigram loss to beat is ${bigram}.`,
        "one-minute",
      );
    if (preset === "gpt2-124m" && loss < 2.85) // larger ones do get there
      return is(
        false,
        "lower than any published run of this architecture: is the validation text in the training text? Are the targets shifted?",
        "gpt2",
      );
    if (preset === "gpt2-124m" && step >= 19000)
      return near(loss, 3.2, 0.2)
        ? is(true, "right: runs over 10B tokens of FineWeb-Edu end between 3.0 and 3.4.", "gpt2")
        : is(
            loss > 3.4 ? false : null,
            "runs over 10B tokens of FineWeb-Edu end between 3.0 and 3.4; compare data and schedule.",
            "gpt2",
          );
    return is(
      null,
      `possible: below ln V ${ln_v}, and not lower than what is published. We have run no such curve; compare the end with 3.0 to 3.4 for gpt2-124m.`,
      "gpt2",
    );
  }

  function loss(box) {
    const preset = choice([]),
      kind = choice([
        ["train", "training"],
        ["val", "validation"],
      ]);
    const step = h("input", { type: "text", inputmode: "numeric", value: "200", size: 8 });
    const value = h("input", { type: "text", inputmode: "decimal", value: "1.07", size: 8 });
    const out = h("p", { class: "play-verdict", role: "status" });
    box.append(
      h(
        "div",
        { class: "play-knobs" },
        labelled("Preset", preset),
        labelled("Which loss", kind),
        labelled("Step", step),
        labelled("Loss, nats per token", value),
      ),
      out,
    );
    return () =>
      guarded(box, async () => {
        const d = await data();
        if (!preset.options.length)
          Object.keys(d.loss.presets).forEach((name) =>
            preset.append(h("option", { value: name }, name)),
          );
        out.replaceChildren();
        out.className = "play-verdict";
        const n = Number(step.value),
          x = /^nan$/i.test(value.value.trim())
            ? NaN
            : Number(value.value.trim().replace(",", ".") || "none");
        need(
          step.value.trim() && Number.isInteger(n) && n >= 0,
          `step is “${step.value}”, expected a whole number, 0 or more`,
        );
        need(
          Number.isFinite(x) || /^nan$/i.test(value.value.trim()),
          `loss is “${value.value}”, expected a number such as 1.07, or nan`,
        );
        need(
          !(x < 0),
          `loss is ${value.value}: a cross-entropy is never negative; was the sign lost?`,
        );
        const { fine, line, where } = verdict(d.loss, preset.value, kind.value, n, x);
        out.classList.add(fine ? "play-fine" : fine === null ? "play-perhaps" : "play-wrong");
        out.append(
          h("strong", {}, fine ? "✓ " : fine === null ? "? " : "✗ "),
          line,
          " ",
          h("a", { href: new URL(`../is-my-loss-right.html#${where}`, gpt2edu.HOME) }, "Why?"),
        );
      });
  }

  // --- Put the tools into the page; each loads what it needs when it comes into view ---

  const TOOLS = {
    tokenizer: [tokenizer, "Cut your own text into tokens"],
    next: [next, "The odds of the next token"],
    sampling: [sampling, "Write a story"],
    attention: [attention, "Who looks at whom"],
    training: [training, "Watch a model learn"],
    loss: [loss, "Is my loss right?"],
  };
  const SILENT = ["training", "loss"]; // they use no model

  function mount(place) {
    const kind = place.dataset.play;
    if (!TOOLS[kind] || place.dataset.ready) return;
    place.dataset.ready = "building";
    const [build, title] = TOOLS[kind];
    const box = h(
      "section",
      { class: "play-box", "aria-label": title },
      h("p", { class: "play-title" }, title),
    );
    const update = build(box);
    const wait = h("p", { class: "play-sum" }, "Loading …");
    box.append(wait, h("p", { class: "play-error", role: "alert", hidden: true }));
    const about = SILENT.includes(kind) ? null : footer(box);
    let waiting,
      asked = 0;
    const run = async () => {
      const mine = ++asked;
      await update();
      wait.remove();
      const shows = about && (kind !== "tokenizer" || shared.model);
      if (shows) await about().catch(() => {}); // its error was said
      if (mine === asked) place.dataset.ready = "yes";
    };
    const soon = () => {
      place.dataset.ready = "waiting";
      asked++;
      clearTimeout(waiting);
      waiting = setTimeout(run, 120); // after the last key
    };
    box.addEventListener("input", (e) => {
      if (!["range", "radio", "file"].includes(e.target.type)) soon(); // these act at once
    });
    document.addEventListener("play-model", () => {
      if (place.dataset.ready !== "building" && about) run();
    });
    place.replaceChildren(box);
    const seen = new IntersectionObserver(
      (entries) => {
        if (!entries.some((e) => e.isIntersecting)) return;
        seen.disconnect();
        run();
      },
      { rootMargin: "200px" },
    );
    seen.observe(place);
  }

  document.querySelectorAll(".play[data-play]").forEach(mount);
  return { mount, verdict, bigramOf };
})();
