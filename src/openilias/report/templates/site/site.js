(() => {
  "use strict";
  const R = window.ILIAS, page = document.getElementById("page"), tip = document.getElementById("tip");
  const runs = R.runs, many = runs.length > 1;
  R.details = R.details || {};

  // --- small things
  const h = (tag, attributes, ...children) => {
    const [name, ...classes] = tag.split("."), node = name.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name || "div");
    if (classes.length) node.setAttribute("class", classes.join(" "));
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };
  const percent = (value, digits = 1) => value === null || value === undefined ? "–" : (value / 10).toFixed(digits);
  const count = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en");
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value / 10).toFixed(1);
  const mean = (values) => { const known = values.filter((v) => v !== null); return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null; };
  const link = (path, ...text) => h("a", { href: "#/" + path.map(encodeURIComponent).join("/") }, ...text);
  const colour = (n) => `var(--s${n % 8})`;
  const objectsOf = (test) => R.objects.map((object, n) => n).filter((n) => test(R.objects[n]));
  const queriesOf = (object) => R.queries.map((query, n) => n).filter((n) => R.queries[n].object === object);
  const categoryOf = (object) => object.category ? object.category.filter((name) => name !== "other").join(" / ") : "";
  const runBySlug = (slug) => runs.findIndex((run) => run.slug === slug);
  const byId = new Map(R.queries.map((query, n) => [query.id, n]));
  const byObject = new Map(R.objects.map((object, n) => [object.name, n]));
  const objectMap = (object, run) => mean(queriesOf(object).map((q) => R.ap[run][q]));
  const ranked = runs.map((_, r) => r).sort((a, b) => runs[b].map - runs[a].map);
  const memo = new Map();
  const objectAps = () => {
    if (!memo.has("objects")) {
      const sums = runs.map(() => R.objects.map(() => [0, 0]));
      R.queries.forEach((query, q) => runs.forEach((run, r) => { const v = R.ap[r][q]; if (v !== null) { sums[r][query.object][0] += v; sums[r][query.object][1] += 1; } }));
      memo.set("objects", sums.map((line) => line.map(([sum, n]) => n ? sum / n : null)));
    }
    return memo.get("objects");
  };
  const heat = (value) => value === null ? {} : { style: `background: rgb(var(--heat) / ${(0.04 + 0.5 * value / 1000).toFixed(3)})` };

  // --- pictures
  const picture = (id) => R.images[id];
  const shot = (id, kind, ...caption) => {
    const found = picture(id);
    return h(`figure.shot.${kind}`, {},
      found ? h("img", { src: "images/" + found[0], width: found[1], height: found[2], alt: `${kind} ${id}`, loading: "lazy" }) : h(".none", {}, "no picture"),
      h("figcaption", {}, ...caption));
  };
  const asked = (query, large) => query.text !== undefined
    ? h("blockquote", {}, query.text === null ? "This text cannot be shown." : query.text)
    : shot(query.id, large ? "query.large" : "query", large ? query.id : "");

  // --- details of a run: data as scripts, for pages opened from disk
  const waiting = new Map();
  const details = (run) => {
    if (R.details[run]) return Promise.resolve(R.details[run]);
    if (!waiting.has(run)) waiting.set(run, new Promise((resolve, reject) => {
      const script = h("script", { src: `data/run-${run}.js` });
      script.onload = () => resolve(R.details[run]);
      script.onerror = () => reject(new Error(`data/run-${run}.js is missing`));
      document.head.append(script);
    }));
    return waiting.get(run);
  };

  // --- tables
  const table = (columns, rows, { sort = null, step = 100, key = (row) => row } = {}) => {
    let order = sort, shown = step, wanted = rows;
    const body = h("tbody"), more = h("button.more", { type: "button", onclick: () => { shown += 400; fill(); } });
    const heads = columns.map((column, n) => {
      const head = h("th" + (column.number ? ".n" : "") + (column.optional ? ".optional" : ""), { scope: "col" });
      head.append(column.value ? h("button", { type: "button", onclick: () => { order = order && order[0] === n ? [n, -order[1]] : [n, column.number ? -1 : 1]; fill(); } }, column.title) : column.title);
      return head;
    });
    const fill = () => {
      let list = [...wanted];
      if (order) {
        const value = columns[order[0]].value, sign = order[1];
        list.sort((a, b) => {
          const x = value(a), y = value(b);
          if (x === y) return 0;
          if (x === null || x === undefined) return 1;
          if (y === null || y === undefined) return -1;
          return (x < y ? -1 : 1) * sign;
        });
      }
      heads.forEach((head, n) => order && order[0] === n ? head.setAttribute("aria-sort", order[1] > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      body.replaceChildren(...list.slice(0, shown).map((row) => h("tr", {}, columns.map((column, n) => {
        const cell = column.cell(row), attributes = column.attributes ? column.attributes(row) : {};
        const kind = (n === 0 ? "th" : "td") + (column.number ? ".n" : "") + (column.optional ? ".optional" : "") + (column.class ? "." + column.class : "");
        return h(kind, n === 0 ? { scope: "row", ...attributes } : attributes, cell);
      }))));
      more.hidden = list.length <= shown;
      more.textContent = `Show more (${count(list.length - Math.min(shown, list.length))} left)`;
    };
    fill();
    return { node: h("div", {}, h(".wide", {}, h("table", {}, h("thead", {}, h("tr", {}, heads)), body)), more), only: (list) => { wanted = list; shown = step; fill(); }, key };
  };
  const filtered = (rows, text, filters, made) => {
    const out = h("output"), input = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter this table" });
    const selects = filters.filter((one) => one.values.length > 1).map((one) => ({
      one, node: h("select", { "aria-label": one.title }, h("option", { value: "" }, one.title + ": all"), one.values.map((value) => h("option", { value }, value))),
    }));
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const left = rows.filter((row) => { const all = text(row).toLowerCase(); return words.every((word) => all.includes(word)) && selects.every(({ one, node }) => !node.value || one.of(row) === node.value); });
      made.only(left);
      out.textContent = left.length === rows.length ? `${count(rows.length)}` : `${count(left.length)} of ${count(rows.length)}`;
    };
    input.addEventListener("input", apply);
    selects.forEach(({ node }) => node.addEventListener("change", apply));
    apply();
    return h(".tools", {}, input, selects.map(({ node }) => node), out);
  };
  const sheet = (title, ...children) => h("section.sheet", {}, title ? h("h2", {}, title) : null, ...children);
  const tile = (name, value, detail, main) => h(".tile" + (main ? ".main" : ""), {}, h("span", {}, name), h("b", {}, value), detail ? h("small", {}, detail) : null);
  const runLink = (n) => link(["run", runs[n].slug], runs[n].name);

  // --- charts
  const svg = (width, height, ...children) => h("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, ...children);
  const text = (x, y, words, anchor = "middle") => h("svg:text", { x, y, "text-anchor": anchor }, words);
  const say = (event, ...children) => {
    tip.replaceChildren(...children);
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), at = event.target.getBoundingClientRect();
    const x = Math.min(Math.max(6, at.left + at.width / 2 - box.width / 2), window.innerWidth - box.width - 6);
    const above = at.top - box.height - 10;
    tip.style.left = `${x}px`;
    tip.style.top = `${above > 6 ? above : at.bottom + 10}px`;
  };
  const hush = () => { tip.hidden = true; };
  const queryTip = (event, q, r, lines) => {
    const query = R.queries[q], place = h(".strip"), parts = [h("b", {}, query.id), h("br"), ...lines];
    say(event, ...parts, query.text !== undefined ? h("p.small", {}, (query.text || "").slice(0, 160)) : h(".strip", {}, shot(query.id, "query", "query")), place);
    details(r).then((found) => {
      if (tip.hidden || tip.firstChild !== parts[0]) return;
      const own = new Set(R.objects[query.object].positives);
      place.append(...(found.first[q] || []).slice(0, 4).map(([id], n) => shot(id, own.has(id) ? "positive" : "negative", `${n + 1}`)));
      say(event, ...tip.childNodes);
    }).catch(() => {});
  };
  const dot = (x, y, q, r, lines, fill) => {
    const show = (event) => queryTip(event, q, r, lines);
    return h("svg:a", { href: "#/query/" + encodeURIComponent(R.queries[q].id), "aria-label": R.queries[q].id },
      h("svg:circle.dot", { cx: x.toFixed(1), cy: y.toFixed(1), r: 4.6, ...(fill ? { style: `fill:${fill};stroke:${fill}` } : {}), onmouseenter: show, onfocus: show, onmouseleave: hush, onblur: hush, tabindex: -1 }));
  };
  const apCurve = (r) => {
    const W = 640, H = 240, left = 36, bottom = 26, order = R.queries.map((_, q) => q).filter((q) => R.ap[r][q] !== null).sort((a, b) => R.ap[r][b] - R.ap[r][a]);
    const x = (n) => left + (W - left - 6) * (n + 0.5) / order.length, y = (v) => 8 + (H - 8 - bottom) * (1 - v / 1000);
    const path = order.map((q, n) => `${n ? "L" : "M"}${x(n).toFixed(1)} ${y(R.ap[r][q]).toFixed(1)}`).join("");
    const every = Math.max(1, Math.floor(order.length / 160));
    return h("figure.chart", {}, svg(W, H,
      [0, 250, 500, 750, 1000].map((v) => [h("svg:line.axis", { x1: left, x2: W - 6, y1: y(v), y2: y(v) }), text(left - 6, y(v) + 4, `${v / 10}`, "end")]),
      h("svg:path.area", { d: `${path}L${x(order.length - 1)} ${y(0)}L${x(0)} ${y(0)}Z` }),
      order.filter((_, n) => n % every === 0).map((q, n) => dot(x(n * every), y(R.ap[r][q]), q, r, [`AP ${percent(R.ap[r][q])}`])),
      text((left + W) / 2, H - 4, "queries by falling AP")));
  };
  const bars = (groups, run, key) => h("table", {}, h("tbody", {}, groups.map(([label, value, size]) => h("tr", {},
    h("th", { scope: "row" }, key ? link(["category", ...label.split("/")], label.split("/").pop()) : label), h("td", { style: "width:45%" }, h(".bar", {}, h("i", { style: `width:${value === null ? 0 : value / 10}%` }))),
    h("td.n", {}, percent(value)), h("td.n.soft.optional", {}, count(size))))));

  // --- pages
  const pages = {};
  pages.leaderboard = () => {
    const b = R.benchmark, best = ranked.find((r) => !runs[r].flags.length) ?? ranked[0];
    const rows = runs.map((_, n) => n), low = Math.min(...runs.map((run) => run.low ?? run.map)), high = Math.max(...runs.map((run) => run.high ?? run.map));
    const from = Math.max(0, Math.floor(low / 50 - 0.5) * 50), to = Math.min(1000, Math.ceil(high / 50 + 0.5) * 50), place = (v) => 100 * (v - from) / (to - from || 1);
    const made = table([
      { title: "run", value: (n) => runs[n].name.toLowerCase(), cell: (n) => [runLink(n), h(".small.soft", {}, [runs[n].model !== runs[n].name ? runs[n].model : null, runs[n].adapted ? "adapted" : null, runs[n].rerank, runs[n].queries === "text" ? "text queries" : null].filter(Boolean).join(" · ")), runs[n].flags.map((flag) => h("span.pill", {}, flag))] },
      { title: `mAP@${R.cut}`, number: true, value: (n) => runs[n].map, cell: (n) => h("b", {}, percent(runs[n].map)) },
      { title: `95 % interval, ${from / 10} to ${to / 10}`, value: (n) => runs[n].map, optional: true, cell: (n) => runs[n].low === null ? "" : h(".range", { title: `${percent(runs[n].low)} to ${percent(runs[n].high)}` }, h("i", { style: `left:${place(runs[n].low)}%;width:${place(runs[n].high) - place(runs[n].low)}%` }), h("b", { style: `left:${place(runs[n].map)}%` })) },
      { title: "oracle", number: true, value: (n) => runs[n].oracle, cell: (n) => percent(runs[n].oracle) },
      { title: "first is right", number: true, optional: true, value: (n) => runs[n].hit, cell: (n) => percent(runs[n].hit) },
      ...(runs.some((run) => run.paper !== null) ? [{ title: "paper", number: true, optional: true, value: (n) => runs[n].paper, cell: (n) => percent(runs[n].paper) }] : []),
      { title: "year", number: true, optional: true, value: (n) => runs[n].year, cell: (n) => runs[n].year ?? "–" },
      { title: "kind", optional: true, value: (n) => runs[n].arch, cell: (n) => runs[n].arch ?? "–" },
      { title: "trained", optional: true, value: (n) => runs[n].train, cell: (n) => runs[n].train ?? "–" },
      { title: "px", number: true, optional: true, value: (n) => runs[n].resolution, cell: (n) => runs[n].resolution ?? "–" },
      { title: "dims", number: true, optional: true, value: (n) => runs[n].dims, cell: (n) => runs[n].dims ?? "–" },
      ...(many ? [{ title: "", cell: (n) => n === best ? "" : link(["compare", runs[best].slug, runs[n].slug], "compare") }] : []),
    ], rows, { sort: [1, -1] });
    const coarse = many ? groupsOf(1) : [];
    const unique = (of) => [...new Set(rows.map(of).filter(Boolean))].sort();
    const tools = filtered(rows, (n) => `${runs[n].name} ${runs[n].model} ${runs[n].arch} ${runs[n].train} ${runs[n].dataset}`, [
      { title: "trained", values: unique((n) => runs[n].train), of: (n) => runs[n].train },
      { title: "kind", values: unique((n) => runs[n].arch), of: (n) => runs[n].arch },
      { title: "queries", values: unique((n) => runs[n].queries), of: (n) => runs[n].queries },
    ], made);
    return [h(".crumbs", {}, "Instance-level retrieval"), h("h1", {}, R.title),
      h(".tiles", {}, tile(`best mAP@${R.cut}`, percent(runs[best].map), runs[best].name, true), tile("runs", count(runs.length)), tile("objects", count(b.objects)), tile("queries", count(R.queries.length), b.kinds), tile("positives", count(b.positives)), tile("distractors", count(b.distractors))),
      sheet(null, many ? tools : null, made.node),
      R.notes.length ? h(".note", {}, h("ul", {}, R.notes.map((note) => h("li", {}, note)))) : null,
      many ? h(".two", {}, sheet("Every query", h("p.soft", {}, "The AP of each query by the best run over the mean of all runs. Hover for its pictures, click for its page."), overall(best)), sheet("By category", coarse.length ? groupTable(coarse) : h("p.soft", {}, "The benchmark has no taxonomy."))) : sheet("Every query", h("p.soft", {}, "Hover for its pictures, click for its page."), apCurve(0))];
  };
  const overall = (best) => {
    const points = R.queries.map((_, q) => [mean(runs.map((_, r) => R.ap[r][q])), R.ap[best][q], q]).filter(([a, b]) => a !== null && b !== null);
    return scatter(points, "mean of all runs, AP", `AP of ${runs[best].name}`, best, (q) => [`best run ${percent(R.ap[best][q])}, mean ${percent(mean(runs.map((_, r) => R.ap[r][q])))}`]);
  };
  const scatter = (points, xName, yName, r, lines) => {
    const W = 560, H = 440, left = 44, bottom = 40, x = (v) => left + (W - left - 12) * v / 1000, y = (v) => 10 + (H - 10 - bottom) * (1 - v / 1000);
    return h("figure.chart", { style: "max-width:46rem" }, svg(W, H,
      [0, 250, 500, 750, 1000].map((v) => [h("svg:line.axis", { x1: left, x2: W - 12, y1: y(v), y2: y(v) }), h("svg:line.axis", { x1: x(v), x2: x(v), y1: 10, y2: H - bottom }), text(left - 6, y(v) + 4, `${v / 10}`, "end"), text(x(v), H - bottom + 16, `${v / 10}`)]),
      h("svg:line.zero", { x1: x(0), y1: y(0), x2: x(1000), y2: y(1000) }),
      points.map(([a, b, q]) => dot(x(a), y(b), q, r, lines(q))),
      text((left + W) / 2, H - 6, xName), h("svg:text", { transform: `translate(11 ${(H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName)));
  };
  pages.run = (slug) => {
    const r = runBySlug(slug);
    if (r < 0) return missing("run", slug);
    const run = runs[r], order = R.queries.map((_, q) => q).filter((q) => R.ap[r][q] !== null).sort((a, b) => R.ap[r][a] - R.ap[r][b] || (R.queries[a].id < R.queries[b].id ? -1 : 1));
    const list = (title, some) => sheet(title, h("table", {}, h("tbody", {}, some.map((q) => h("tr", {}, h("th", { scope: "row" }, queryLink(q)), h("td.n", {}, percent(R.ap[r][q])))))));
    const facts = [["model", run.model], ["year", run.year], ["kind", run.arch], ["trained", run.train], ["on", run.dataset], ["dims", run.dims], ["adapted", run.adapted ? "yes" : "no"], ["re-ranked by", run.rerank]].filter(([, value]) => value !== null && value !== undefined);
    return [h(".crumbs", {}, link([], "Leaderboard"), " / run"), h("h1", {}, run.name),
      h("p", {}, run.page ? h("a", { href: run.page }, "Full page: protocol explained, gallery, re-ranking, compression") : null),
      h(".tiles", {}, tile(`mAP@${R.cut}`, percent(run.map), run.low === null ? null : `95 %: ${percent(run.low)} to ${percent(run.high)}`, true), tile("oracle", percent(run.oracle), "a perfect re-ranking"), tile("first is right", percent(run.hit)), tile("database", count(run.database)), run.paper === null ? null : tile("paper", percent(run.paper), "ILIAS, 100M distractors")),
      run.notes.length ? h(".note", {}, h("ul", {}, run.notes.map((note) => h("li", {}, note)))) : null,
      h(".two", {}, sheet("AP of every query", apCurve(r)), sheet("By category", run.coarse.length ? bars(run.coarse, r, true) : h("p.soft", {}, "The benchmark has no taxonomy.")),
        run.coverage.length || run.clutter.length ? sheet(run.coverage.length ? "By area coverage" : "By clutter", run.coverage.length ? bars(run.coverage) : null, run.clutter.length ? [run.coverage.length ? h("h2", { style: "margin:1rem 0 0.6rem" }, "By clutter") : null, bars(run.clutter)] : null) : null, list("Worst queries", order.slice(0, 10)),
        list("Best queries", order.slice(-10).reverse()), sheet("Model", h("table", {}, h("tbody", {}, facts.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, `${value}`)))))),
        sheet("Protocol", h("table", {}, h("tbody", {}, run.protocol.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, value)))))))];
  };
  const queryLink = (q) => link(["query", R.queries[q].id], R.queries[q].id);
  const apColumns = () => ranked.map((r) => ({ title: runs[r].name, number: true, class: "heat", value: (q) => R.ap[r][q], cell: (q) => percent(R.ap[r][q]), attributes: (q) => heat(R.ap[r][q]) }));
  pages.queries = () => {
    const rows = R.queries.map((_, q) => q), spread = (q) => { const known = runs.map((_, r) => R.ap[r][q]).filter((v) => v !== null); return known.length ? Math.max(...known) - Math.min(...known) : null; };
    const made = table([
      { title: "query", value: (q) => R.queries[q].id, cell: (q) => queryLink(q) },
      { title: "category", optional: true, value: (q) => categoryOf(R.objects[R.queries[q].object]), cell: (q) => categoryOf(R.objects[R.queries[q].object]) },
      { title: "positives", number: true, optional: true, value: (q) => R.objects[R.queries[q].object].positives.length, cell: (q) => R.objects[R.queries[q].object].positives.length },
      ...(many ? [{ title: "mean", number: true, value: (q) => mean(runs.map((_, r) => R.ap[r][q])), cell: (q) => h("b", {}, percent(mean(runs.map((_, r) => R.ap[r][q])))) }, { title: "spread", number: true, value: spread, cell: (q) => percent(spread(q)) }] : []),
      ...apColumns(),
    ], rows, { sort: many ? [3, 1] : [3, 1] });
    const coarse = [...new Set(R.objects.map((object) => object.category ? object.category[0] : null).filter(Boolean))].sort();
    const tools = filtered(rows, (q) => `${R.queries[q].id} ${categoryOf(R.objects[R.queries[q].object])} ${R.queries[q].text || ""}`, [
      { title: "category", values: coarse, of: (q) => { const category = R.objects[R.queries[q].object].category; return category ? category[0] : null; } },
      { title: "kind", values: [...new Set(R.queries.map((query) => query.text === undefined ? "image" : "text"))], of: (q) => R.queries[q].text === undefined ? "image" : "text" },
    ], made);
    return [h("h1", {}, "Queries"), sheet(null, tools, made.node)];
  };
  pages.query = (...parts) => {
    const id = parts.join("/"), q = byId.get(id);
    if (q === undefined) return missing("query", id);
    const query = R.queries[q], object = R.objects[query.object], order = runs.map((_, r) => r).filter((r) => R.ap[r][q] !== null).sort((a, b) => R.ap[b][q] - R.ap[a][q]);
    const own = new Set(object.positives), lists = h("div"), step = 6;
    let shown = 0;
    const more = h("button.more", { type: "button", onclick: () => add() }, "Show more runs");
    const add = () => {
      for (const r of order.slice(shown, shown + step)) {
        const place = h("div", {}, h("p.soft", {}, "…"));
        lists.append(h(".runrow", {}, h("header", {}, h("b", {}, runLink(r)), h("span", {}, `AP ${percent(R.ap[r][q])}`)), place));
        details(r).then((found) => {
          const first = found.first[q] || [], ranks = found.ranks[q] || [];
          const later = object.positives.map((item, n) => [item, ranks[n]]).filter(([item, rank]) => !first.some(([other]) => other === item));
          later.sort((a, b) => (a[1] || Infinity) - (b[1] || Infinity));
          place.replaceChildren(h(".strip", {}, first.map(([item, score], n) => shot(item, own.has(item) ? "positive" : "negative", h("b", {}, `${n + 1}`), ` ${score}`, h("br"), item))),
            later.length ? h("h3", { style: "margin:0.7rem 0 0.3rem" }, "Other positives") : "", h(".strip", {}, later.map(([item, rank]) => shot(item, "positive", h("b", {}, rank ? `rank ${count(rank)}` : "not in the list"), h("br"), item))));
        }).catch((error) => place.replaceChildren(h("p", {}, error.message)));
      }
      shown += step;
      more.hidden = shown >= order.length;
    };
    add();
    return [h(".crumbs", {}, link(["queries"], "Queries"), " / ", link(["object", object.name], object.name)), h("h1", {}, id),
      h(".asked", { style: "margin-top:1rem" }, asked(query, true), h("div", {},
        h("p", {}, object.category ? [link(["category", ...object.category.slice(0, 2)], categoryOf(object)), ", "] : "", `${count(object.positives.length)} positives.`),
        h("table", { style: "max-width:40rem" }, h("tbody", {}, order.slice(0, 12).map((r) => h("tr", {}, h("th", { scope: "row" }, runLink(r)), h("td", { style: "width:45%" }, h(".bar", {}, h("i", { style: `width:${R.ap[r][q] / 10}%` }))), h("td.n", {}, percent(R.ap[r][q])))))))),
      sheet("First images by run", lists, more)];
  };
  pages.objects = () => {
    const aps = objectAps(), rows = R.objects.map((_, n) => n), of = (n) => mean(runs.map((_, r) => aps[r][n])), grid = h(".grid"), more = h("button.more", { type: "button", onclick: () => { shown += 120; fill(); } }, "Show more");
    let wanted = rows, shown = 60, order = "hardest";
    const fill = () => {
      const list = [...wanted].sort(order === "name" ? (a, b) => R.objects[a].name < R.objects[b].name ? -1 : 1 : (a, b) => (of(a) - of(b)) * (order === "hardest" ? 1 : -1));
      grid.replaceChildren(...list.slice(0, shown).map((n) => {
        const object = R.objects[n], q = queriesOf(n).find((one) => picture(R.queries[one].id)), found = q === undefined ? null : picture(R.queries[q].id);
        return h("a.card", { href: "#/object/" + encodeURIComponent(object.name) }, h(".picture", {}, found ? h("img", { src: "images/" + found[0], alt: "", loading: "lazy", width: found[1], height: found[2] }) : "no picture"),
          h("div", {}, h("b", {}, object.name), h("span.small.soft", {}, `${many ? "mean AP" : "AP"} ${percent(of(n))} · ${object.positives.length} positives`)));
      }));
      more.hidden = list.length <= shown;
    };
    const sorter = h("select", { "aria-label": "Order", onchange: (event) => { order = event.target.value; fill(); } }, ["hardest", "easiest", "name"].map((name) => h("option", { value: name }, `order: ${name}`)));
    const tools = filtered(rows, (n) => `${R.objects[n].name} ${categoryOf(R.objects[n])}`, [{ title: "category", values: [...new Set(R.objects.map((o) => o.category ? o.category[0] : null).filter(Boolean))].sort(), of: (n) => R.objects[n].category ? R.objects[n].category[0] : null }], { only: (list) => { wanted = list; shown = 60; fill(); } });
    tools.append(sorter);
    return [h("h1", {}, "Objects"), h("div", { style: "margin-top:1rem" }, tools, grid, more)];
  };
  pages.object = (...parts) => {
    const name = parts.join("/"), n = byObject.get(name);
    if (n === undefined) return missing("object", name);
    const object = R.objects[n], own = queriesOf(n), aps = objectAps();
    const order = runs.map((_, r) => r).filter((r) => aps[r][n] !== null).sort((a, b) => aps[b][n] - aps[a][n]);
    const places = object.positives.map((item) => h("figcaption", {}, item));
    const strip = h(".strip", {}, object.positives.map((item, k) => { const one = shot(item, "positive"); one.querySelector("figcaption").replaceWith(places[k]); return one; }));
    if (order.length) details(order[0]).then((found) => object.positives.forEach((item, k) => {
      const ranks = own.map((q) => (found.ranks[q] || [])[k]).filter(Boolean);
      places[k].replaceChildren(h("b", {}, ranks.length ? `rank ${count(Math.min(...ranks))}` : "not found"), h("br"), item);
    })).catch(() => {});
    return [h(".crumbs", {}, link(["objects"], "Objects"), object.category ? [" / ", link(["category", ...object.category.slice(0, 2)], categoryOf(object))] : null), h("h1", {}, name),
      h(".two", {}, sheet("Queries", h(".strip", {}, own.map((q) => h("a", { href: "#/query/" + encodeURIComponent(R.queries[q].id) }, asked(R.queries[q], false), h(".small", {}, R.queries[q].id))))),
        sheet("By run", h("table", {}, h("tbody", {}, order.map((r) => h("tr", {}, h("th", { scope: "row" }, runLink(r)), h("td", { style: "width:45%" }, h(".bar", {}, h("i", { style: `width:${aps[r][n] / 10}%` }))), h("td.n", {}, percent(aps[r][n])))))))),
      sheet("Positives", order.length ? h("p.soft", {}, `Ranks of ${runs[order[0]].name}, the best run here.`) : null, strip)];
  };
  const groupAps = (members) => { const aps = objectAps(); return runs.map((_, r) => mean(members.map((n) => aps[r][n]))); };
  const groupTable = (groups) => {
    const made = table([
      { title: "category", value: (g) => g.name, cell: (g) => [g.path.length > 1 ? h("span.soft", {}, `${g.path[0]} / `) : null, link(["category", ...g.path], g.path[g.path.length - 1])] },
      { title: "objects", number: true, value: (g) => g.members.length, cell: (g) => count(g.members.length) },
      ...ranked.map((r) => ({ title: runs[r].name, number: true, class: "heat", value: (g) => g.aps[r], cell: (g) => percent(g.aps[r]), attributes: (g) => heat(g.aps[r]) })),
    ], groups, { sort: [2, -1] });
    return made.node;
  };
  pages.categories = () => {
    const coarse = groupsOf(1);
    return [h("h1", {}, "Categories"), coarse.length ? [sheet("Primary", groupTable(coarse)), sheet("Mid-level", groupTable(groupsOf(2)))] : sheet(null, h("p", {}, "The benchmark has no taxonomy."))];
  };
  const groupsOf = (depth) => {
    const found = new Map();
    R.objects.forEach((object, n) => {
      if (!object.category) return;
      const path = object.category.slice(0, depth), key = path.join("/");
      if (!found.has(key)) found.set(key, { name: key, path, members: [] });
      found.get(key).members.push(n);
    });
    return [...found.values()].map((group) => ({ ...group, aps: groupAps(group.members) }));
  };
  pages.category = (...path) => {
    const members = objectsOf((object) => object.category && path.every((name, n) => object.category[n] === name)), aps = objectAps();
    if (!members.length) return missing("category", path.join(" / "));
    const total = groupAps(members), made = table([
      { title: "object", value: (n) => R.objects[n].name, cell: (n) => link(["object", R.objects[n].name], R.objects[n].name) },
      { title: "positives", number: true, optional: true, value: (n) => R.objects[n].positives.length, cell: (n) => R.objects[n].positives.length },
      ...ranked.map((r) => ({ title: runs[r].name, number: true, class: "heat", value: (n) => aps[r][n], cell: (n) => percent(aps[r][n]), attributes: (n) => heat(aps[r][n]) })),
    ], members, { sort: [2, 1] });
    return [h(".crumbs", {}, link(["categories"], "Categories"), path.length > 1 ? [" / ", link(["category", path[0]], path[0])] : null), h("h1", {}, path[path.length - 1]),
      sheet("By run", bars(ranked.map((r) => [runs[r].name, total[r], null]))), sheet("Objects", made.node)];
  };
  pages.compare = (a, b) => {
    if (!many) return [h("h1", {}, "Compare"), sheet(null, h("p", {}, "There is one run. Give several to ilias report."))];
    let x = runBySlug(a), y = runBySlug(b);
    if (x < 0) x = ranked[1];
    if (y < 0) y = ranked.find((r) => r !== x);
    const choose = (current, side) => h("select", { "aria-label": side, onchange: (event) => { const slug = runs[event.target.value].slug; location.hash = "#/compare/" + (side === "first run" ? [slug, runs[y].slug] : [runs[x].slug, slug]).map(encodeURIComponent).join("/"); } }, runs.map((run, r) => h("option", { value: r, selected: r === current }, run.name)));
    const common = R.queries.map((_, q) => q).filter((q) => R.ap[x][q] !== null && R.ap[y][q] !== null);
    const differences = common.map((q) => [R.ap[y][q] - R.ap[x][q], q]), better = differences.filter(([d]) => d > 0), worse = differences.filter(([d]) => d < 0);
    const pair = R.pairs.find((one) => one.a === x && one.b === y), turned = pair ? null : R.pairs.find((one) => one.a === y && one.b === x);
    const list = (title, some) => sheet(title, some.length ? h("table", {}, h("tbody", {}, some.map(([d, q]) => h("tr", {}, h("th", { scope: "row" }, queryLink(q)), h("td.n.optional", {}, `${percent(R.ap[x][q])} → ${percent(R.ap[y][q])}`), h("td.n" + (d > 0 ? ".up" : ".down"), {}, signed(d)))))) : h("p.soft", {}, "None."));
    const sorted = [...differences].sort((m, n) => n[0] - m[0]), significance = pair || turned;
    return [h("h1", {}, "Compare"), h(".tools", { style: "margin-top:1rem" }, choose(x, "first run"), h("span", {}, "with"), choose(y, "second run")),
      !common.length ? sheet(null, h("p", {}, "These runs answer other queries: compare them with ilias compare, object by object.")) : [
      h(".tiles", {}, tile("difference", signed(mean(differences.map(([d]) => d))), significance && significance.low !== null ? `95 %: ${pair ? signed(pair.low) : signed(-turned.high)} to ${pair ? signed(pair.high) : signed(-turned.low)}` : R.queries.length === common.length ? null : `of ${count(common.length)} queries that both answer`, true), tile("better", count(better.length), better.length ? `by ${percent(mean(better.map(([d]) => d)))} on average` : null), tile("worse", count(worse.length), worse.length ? `by ${percent(-mean(worse.map(([d]) => d)))} on average` : null), tile("the same", count(common.length - better.length - worse.length)), significance ? tile("p", significance.p < 0.0001 ? "< 0.0001" : significance.p.toFixed(4), `${significance.adjusted.toFixed(4)} corrected for ${R.pairs.length} pairs`) : null),
      sheet("AP of every query", scatter(common.map((q) => [R.ap[x][q], R.ap[y][q], q]), `AP of ${runs[x].name}`, `AP of ${runs[y].name}`, y, (q) => [`${percent(R.ap[x][q])} → ${percent(R.ap[y][q])}`])),
      h(".two", {}, list("Gain most", sorted.filter(([d]) => d > 0).slice(0, 12)), list("Lose most", sorted.filter(([d]) => d < 0).slice(-12).reverse()))]];
  };
  const exhibit = (one) => h("section.sheet.exhibit", { id: one.name }, h("h2", {}, one.paper ? h("span.pill", {}, one.paper) : null, one.title),
    one.drawn ? h("img", { src: `figures/${one.name}.svg`, alt: one.title, loading: "lazy" }) : null,
    h("details", one.drawn ? {} : { open: true }, h("summary", {}, `${one.drawn ? "Numbers" : "Table"} (${count(one.rows.length)} rows)`), h(".wide", {}, h("table", {}, h("thead", {}, h("tr", {}, one.columns.map((name, n) => h(one.numbers[n] ? "th.n" : "th", { scope: "col" }, name)))), h("tbody", {}, one.rows.slice(0, 200).map((row, r) => h("tr", {}, row.map((cell, n) => h((one.numbers[n] ? "td.n" : "td") + (one.bold.some(([a, b]) => a === r && b === n) ? ".best" : ""), {}, cell))))))),
      one.rows.length > 200 ? h("p.soft", {}, "The first 200 rows; all are in the CSV file.") : null),
    one.notes.map((note) => h("p.small.soft", {}, note)),
    h("p.files.small", {}, (one.drawn ? ["svg", "png"] : []).concat(["csv", "md", "tex"]).map((ending) => h("a", { href: `figures/${one.name}.${ending}` }, ending.toUpperCase()))));
  pages.figures = (name) => {
    if (!R.exhibits.length) return [h("h1", {}, "Figures and tables"), sheet(null, h("p", {}, "None were asked for."))];
    const nodes = [h("h1", {}, "Figures and tables"), sheet("Contents", h("ul.toc", {}, R.exhibits.map((one) => h("li", {}, link(["figures", one.name], one.paper ? `${one.paper}: ` : "", one.title))))), R.exhibits.map(exhibit),
      R.missing.length ? sheet("Not shown", h("ul", {}, R.missing.map((why) => h("li", {}, why)))) : null];
    if (name) requestAnimationFrame(() => document.getElementById(name)?.scrollIntoView());
    return nodes;
  };
  pages.about = () => [h("h1", {}, "About this report"), sheet("What the numbers are", h("p", {}, `AP@${R.cut}: database images of equal score form one block; AP is the sum over the blocks of the first ${count(R.k)} images of (hits in the block × precision at its end), over min(k, positives). mAP is the mean over queries. The oracle is the AP of a perfect re-ranking of the same images.`), h("p", {}, "Intervals: bootstrap over objects with all their queries, bias-corrected and accelerated, 95 %. Tests: paired permutations over objects, Holm's correction for all pairs shown.")),
    sheet("Files", h("ul", {}, runs.map((run) => h("li", {}, run.name, run.page ? [": ", h("a", { href: run.page }, "page"), ", ", h("a", { href: run.page.replace("index.html", "queries.csv") }, "queries.csv"), ", ", h("a", { href: run.page.replace("index.html", "groups.csv") }, "groups.csv")] : null)))),
    h("footer", {}, R.made)];
  const missing = (kind, name) => [h("h1", {}, `There is no ${kind} '${name}' here`), h("p", {}, link([], "To the leaderboard"))];

  // --- finding
  const search = document.getElementById("search"), input = search.querySelector("input"), list = document.getElementById("found");
  const targets = [...runs.map((run) => [run.name, ["run", run.slug]]), ...R.objects.map((object) => [object.name, ["object", object.name]]), ...R.queries.map((query) => [query.id, ["query", query.id]])];
  const matches = (words) => targets.filter(([name]) => name.toLowerCase().includes(words.toLowerCase()));
  input.addEventListener("input", () => list.replaceChildren(...(input.value.length > 1 ? matches(input.value).slice(0, 12).map(([name]) => h("option", { value: name })) : [])));
  search.addEventListener("submit", (event) => { event.preventDefault(); const found = targets.find(([name]) => name === input.value) || matches(input.value)[0]; if (found) { location.hash = "#/" + found[1].map(encodeURIComponent).join("/"); input.value = ""; } });

  // --- routes
  const show = () => {
    hush();
    const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
    const path = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded), [name = "leaderboard", ...rest] = path;
    const make = Object.hasOwn(pages, name) ? pages[name] : () => missing("page", name);
    page.replaceChildren(...[make(...rest)].flat(Infinity).filter(Boolean));
    const section = { run: "", leaderboard: "", query: "queries", object: "objects", category: "categories" }[name] ?? name;
    document.querySelectorAll("#top nav a").forEach((one) => one.getAttribute("href") === "#/" + section ? one.setAttribute("aria-current", "page") : one.removeAttribute("aria-current"));
    document.title = [page.querySelector("h1")?.textContent, name === "leaderboard" ? null : R.title].filter(Boolean).join(" · ");
    if (!(name === "figures" && rest.length)) window.scrollTo(0, 0);
  };
  window.addEventListener("hashchange", show);
  window.addEventListener("scroll", hush, { passive: true });
  show();
})();
