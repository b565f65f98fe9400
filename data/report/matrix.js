// The connectome as a heat map that tells the values of edges and the partners of nodes.
"use strict";

(() => {
  if (window.difftract.matrix) return;
  window.difftract.matrix = true;

  const PARTNERS = 10;
  const SMALLEST_ROW = 8; // pixels; names cannot be read below
  let made = 0;

  function readValues({ values, least, ratio }) {
    const codes = window.difftract.decode(values);
    if (least === null) return Float64Array.from(codes);
    return Float64Array.from(codes, (code) => (code ? least * Math.exp(ratio * (code - 1)) : 0));
  }

  function readEdges(data) {
    const n = data.names.length, of = new Map();
    const gaps = window.difftract.decode(data.gaps);
    const first = new Uint16Array(gaps.length), second = new Uint16Array(gaps.length);
    let place = 0;
    gaps.forEach((gap, edge) => {
      place += gap;
      first[edge] = Math.floor(place / n);
      second[edge] = place % n;
      of.set(place, edge);
    });
    const measures = data.measures.map((measure) => ({ ...measure, values: readValues(measure) }));
    const find = (i, j) => of.get(Math.min(i, j) * n + Math.max(i, j));
    return { n, first, second, measures, find };
  }

  function written(value, unit = "") {
    const rounded = Number(value.toPrecision(3)); // 999.7 has four digits, and no exponent
    const number = Number.isInteger(value) || rounded >= 1000 ? Math.round(value).toLocaleString("en")
      : rounded < 1e-3 ? value.toExponential(2) : value.toPrecision(3);
    return unit ? `${number} ${unit}` : number;
  }

  // Plotly reads text as markup; names are not.
  function literal(name) {
    return name.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  }

  // What is coloured: the logarithm, or the value itself without its rarest extremes.
  function coloured({ n, first, second }, { values, logarithmic }) {
    const z = Array.from({ length: n }, () => new Float32Array(n).fill(NaN));
    const there = [];
    values.forEach((value, edge) => {
      if (!(value > 0)) return;
      const shown = logarithmic ? Math.log10(value) : value;
      there.push(shown);
      z[first[edge]][second[edge]] = shown;
      z[second[edge]][first[edge]] = shown;
    });
    there.sort((a, b) => a - b);
    const at = (share) => there[Math.round(share * (there.length - 1))];
    const stray = logarithmic ? 0 : 0.02;
    let [low, high] = there.length ? [at(stray), at(1 - stray)] : [0, 1];
    if (low === high) [low, high] = logarithmic ? [low - 0.3, high + 0.3] : [low / 2, high * 2];
    return { z, zmin: low, zmax: high };
  }

  function decadeTicks(low, high) {
    const steps = high - low > 3 ? [1] : high - low > 1.2 ? [1, 3] : [1, 2, 5];
    const values = [];
    for (let power = Math.floor(low); power <= high; power++) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (Math.log10(value) >= low - 1e-6 && Math.log10(value) <= high + 1e-6) values.push(value);
      }
    }
    const plain = (value) => value.toLocaleString("en", { maximumSignificantDigits: 1 });
    return { tickvals: values.map(Math.log10), ticktext: values.map(plain) };
  }

  function element(kind, text, parent) {
    const made = document.createElement(kind);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function prepare(root) {
    const plot = root.querySelector(".matrix-plot");
    const tip = root.querySelector(".matrix-tip");
    const select = root.querySelector(".matrix-measure");
    const search = root.querySelector(".matrix-search");
    const data = window.difftract.dataOf(root);
    const edges = readEdges(data);
    const whole = [-0.5, edges.n - 0.5];
    let marked = null;

    const measure = () => edges.measures[select.selectedIndex];
    const narrow = () => root.clientWidth < 640;
    const longest = Math.max(...data.names.map((name) => name.length), 1);

    // Sizes in pixels: of the matrix, and of the room for names where they can be read.
    function room(range) {
      const shown = Math.abs(range[1] - range[0]);
      const right = narrow() ? (data.groups.length ? 44 : 20) : 98;
      const most = root.clientWidth - right - 12;
      const [side, row] = [Math.min(most, 860), Math.min(most - 5 * longest, 860) / shown];
      if (narrow() || row < SMALLEST_ROW) return { labels: 0, font: 12, right, side };
      const font = Math.min(row, 12), labels = 12 + 0.6 * font * longest;
      return { labels, font, right, side: Math.min(most - labels, 860) };
    }

    function ticks(range, { labels, font }) {
      const places = [];
      const last = Math.min(edges.n - 1, Math.floor(Math.max(...range)));
      for (let i = Math.max(0, Math.ceil(Math.min(...range))); labels && i <= last; i++) places.push(i);
      return {
        tickmode: "array", tickvals: places, ticktext: places.map((i) => literal(data.names[i])),
        tickfont: { size: font },
      };
    }

    function size({ labels, right, side }) {
      const top = data.groups.length ? 118 : 60, foot = narrow() ? 80 : 0;
      return {
        width: side + labels + right + 4, height: side + top + labels + foot + 10,
        // Room for the colour bar is in it: what Plotly adds for one grows with every resizing.
        margin: { l: labels + 4, r: right, t: top, b: labels + foot + 10, autoexpand: false },
      };
    }

    function axis(range) {
      return {
        range, ...ticks(range, room(range)), showgrid: false, zeroline: false, ticks: "", constrain: "domain",
        minallowed: whole[0], maxallowed: whole[1],
      };
    }

    function shapes() {
      const line = { color: window.difftract.color(root, "--matrix-line"), width: 2 };
      const all = [];
      for (const { first } of data.sides.slice(1)) {
        all.push({ type: "line", x0: first - 0.5, x1: first - 0.5, y0: whole[0], y1: whole[1], line });
        all.push({ type: "line", y0: first - 0.5, y1: first - 0.5, x0: whole[0], x1: whole[1], line });
      }
      for (const { first, last, color } of data.groups) {
        const bar = { type: "rect", fillcolor: color, line: { width: 0 } };
        const ends = [first - 0.5, last + 0.5];
        all.push({ ...bar, yref: "y domain", y0: 1.005, y1: 1.018, x0: ends[0], x1: ends[1] });
        all.push({ ...bar, xref: "x domain", x0: 1.005, x1: 1.018, y0: ends[0], y1: ends[1] });
      }
      if (marked !== null) {
        const mark = { type: "rect", line: { color: "#ff9e1b", width: 2 } };
        const ends = [marked - 0.5, marked + 0.5];
        all.push({ ...mark, x0: ends[0], x1: ends[1], y0: whole[0], y1: whole[1] });
        all.push({ ...mark, y0: ends[0], y1: ends[1], x0: whole[0], x1: whole[1] });
      }
      return all;
    }

    function headings() {
      const { side } = room(whole);
      const all = data.sides.map(({ name, first, last }) => ({
        text: name, x: (first + last) / 2, y: 1, yshift: data.groups.length ? 70 : 4,
        font: { size: 14 },
      }));
      for (const { name, first, last } of data.groups) {
        if (((last - first + 1) / edges.n) * side < 14) continue;
        const slanted = { textangle: -40, xanchor: "left", yanchor: "bottom", font: { size: 11 } };
        all.push({ text: literal(name), x: (first + last) / 2, y: 1.02, ...slanted });
      }
      return all.map((heading) => ({
        yref: "y domain", yanchor: "bottom", showarrow: false, ...heading,
      }));
    }

    function layout() {
      const ink = window.difftract.color(root, "--matrix-ink");
      return {
        ...size(room(whole)),
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: window.difftract.color(root, "--matrix-blank"),
        font: { color: ink, size: 12 },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: ink },
        xaxis: { ...axis(whole), tickangle: 90 },
        yaxis: { ...axis([whole[1], whole[0]]), scaleanchor: "x" },
        // A finger scrolls the page; it marks by a tap.
        dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
        shapes: shapes(), annotations: headings(),
        hovermode: "closest",
      };
    }

    function heatmap() {
      const { title, unit, logarithmic } = measure();
      const values = coloured(edges, measure());
      const last = data.colors.length - 1;
      const where = narrow()
        ? { orientation: "h", y: -0.02, yanchor: "top", thickness: 12, len: 1 }
        : { x: 1.03, len: 0.5, y: 0, yanchor: "bottom", thickness: 14 };
      return {
        type: "heatmap", ...values, hoverinfo: "none", zsmooth: false,
        colorscale: data.colors.map((color, i) => [i / last, color]),
        colorbar: {
          ...where, outlinewidth: 0,
          title: { text: unit || title, side: narrow() ? "bottom" : "right" },
          ...(logarithmic ? decadeTicks(values.zmin, values.zmax) : {}),
        },
      };
    }

    // A colour bar that was turned leaves parts of itself behind: such a plot is made anew.
    let drawn = null;
    async function redraw() {
      width = root.clientWidth;
      if (drawn === narrow()) return window.Plotly.react(plot, [heatmap()], layout(), OPTIONS);
      drawn = narrow();
      await window.Plotly.newPlot(plot, [heatmap()], layout(), OPTIONS);
      listenToPlot();
    }

    function tell(i, j) {
      const edge = edges.find(i, j);
      tip.replaceChildren();
      tip.dataset.nodes = `${i},${j}`;
      element("strong", i === j ? data.names[i] : `${data.names[i]} \u2013 ${data.names[j]}`, tip);
      if (edge === undefined) {
        element("div", i === j ? "none within" : `no ${data.unit}`, tip);
        return;
      }
      const list = element("dl", "", tip);
      for (const { title, unit, values } of edges.measures) {
        if (!(values[edge] > 0)) continue;
        const pair = [element("dt", title, list), element("dd", written(values[edge], unit), list)];
        for (const one of pair) one.classList.toggle("chosen", values === measure().values);
      }
    }

    function place({ clientX, clientY }) {
      const box = root.getBoundingClientRect();
      tip.hidden = false;
      const x = clientX - box.left, y = clientY - box.top;
      const left = x + 16 + tip.offsetWidth > box.width ? x - 16 - tip.offsetWidth : x + 16;
      tip.style.left = `${Math.max(left, 0)}px`;
      tip.style.top = `${y + 16}px`;
    }

    // Strength, and the partners with the most streamlines.
    function describe() {
      const panel = root.querySelector(".matrix-node");
      panel.replaceChildren();
      panel.hidden = marked === null;
      if (marked === null) return;
      const [counts] = edges.measures;
      const partners = [];
      let strength = 0, within = 0;
      counts.values.forEach((count, edge) => {
        const [i, j] = [edges.first[edge], edges.second[edge]];
        if (!(count > 0) || (i !== marked && j !== marked)) return;
        if (i === j) {
          within = count;
          return;
        }
        strength += count;
        partners.push({ node: i === marked ? j : i, edge, count });
      });
      partners.sort((a, b) => b.count - a.count);
      element("h5", data.names[marked], panel);
      const inside = within ? `; ${written(within)} within` : "";
      element("p", `Strength ${written(strength, data.unit)}, to ${partners.length} of `
        + `${edges.n - 1} nodes${inside}.`, panel);
      const table = element("table", "", element("div", "", panel));
      const head = element("tr", "", table);
      element("th", "Strongest partners", head);
      for (const { title, unit } of edges.measures) {
        element("th", unit ? `${title}, ${unit}` : title, head);
      }
      for (const { node, edge } of partners.slice(0, PARTNERS)) {
        const row = element("tr", "", table);
        const button = element("button", data.names[node], element("td", "", row));
        button.type = "button";
        button.addEventListener("click", () => mark(node));
        for (const { values } of edges.measures) {
          element("td", values[edge] > 0 ? written(values[edge]) : "", row);
        }
      }
    }

    function mark(node) {
      marked = node;
      search.value = node === null ? "" : data.names[node];
      describe();
      window.Plotly.relayout(plot, { shapes: shapes() });
    }

    function listen() {
      select.addEventListener("change", () => window.Plotly.react(plot, [heatmap()], plot.layout));
      search.addEventListener("input", () => {
        const node = data.names.indexOf(search.value);
        if (node >= 0) mark(node);
        else if (!search.value) mark(null);
      });
      const list = root.querySelector("datalist");
      list.id = `matrix-nodes-${made++}`;
      search.setAttribute("list", list.id);
      for (const name of data.names) element("option", "", list).value = name;
      window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawn);
      if (window.ResizeObserver) new ResizeObserver(redrawn).observe(root);
      document.addEventListener("pointerdown", ({ target }) => {
        if (!plot.contains(target)) tip.hidden = true; // a finger does not leave by itself
      });
    }

    let width = 0;
    function redrawn(what) {
      if (root.dataset.ready !== "true" || !root.clientWidth) return; // on paper it is not
      if (what instanceof Array && root.clientWidth === width) return; // of what is below
      redraw();
    }

    function listenToPlot() {
      plot.on("plotly_hover", ({ points: [{ x, y }], event }) => {
        tell(y, x);
        place(event);
      });
      plot.on("plotly_unhover", () => { tip.hidden = true; });
      plot.on("plotly_click", ({ points: [{ x, y }] }) => mark(y === marked ? x : y));
      plot.on("plotly_relayout", (change) => {
        if (Object.keys(change).some((key) => /^[xy]axis[.](range|autorange)/.test(key))) rename();
      });
    }

    // After coming nearer, or going back: the names that can be read now.
    function rename() {
      const { xaxis, yaxis } = plot.layout;
      const smaller = [xaxis.range, yaxis.range].map((range) => Math.abs(range[1] - range[0]));
      const shown = room([0, Math.max(...smaller)]);
      const change = size(shown);
      for (const name of ["xaxis", "yaxis"]) {
        const names = ticks(plot.layout[name].range, shown);
        for (const [key, value] of Object.entries(names)) change[`${name}.${key}`] = value;
      }
      window.Plotly.relayout(plot, change);
    }

    listen();
    return redraw;
  }

  const OPTIONS = {
    displaylogo: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
  };

  window.difftract.serve("matrix-view", prepare);
})();
