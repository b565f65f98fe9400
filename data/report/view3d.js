// Streamlines over three slices of the brain. Everything is in RAS+ millimetres.
"use strict";

(() => {
  if (window.difftract.view3d) return;
  window.difftract.view3d = true;

  const AXES = ["x", "y", "z"];
  const SIDES = [["L", "R"], ["P", "A"], ["I", "S"]];
  // A slice is not seen if less of the way to the eye is across it.
  const EDGE_ON = 0.15;
  // Where the eye is, in sizes of the brain; z is up on the screen but for looks along it.
  const VIEWS = {
    "three-quarter": [-0.76, 0.91, 0.54],
    left: [-1.2, 0, 0],
    right: [1.2, 0, 0],
    front: [0, 1.2, 0],
    back: [0, -1.2, 0],
    top: [0, -0.001, 1.4],
    bottom: [0, 0.001, -1.4],
  };

  function readStreamlines({ origin_mm, quantum_mm, points, counts, colors }) {
    const whole = window.difftract.decode(points);
    const mm = new Float32Array(whole.length);
    for (let i = 0; i < whole.length; i++) mm[i] = origin_mm[i % 3] + quantum_mm * whole[i];
    const lines = [];
    let first = 0;
    for (const count of window.difftract.decode(counts)) {
      const last = first + count;
      let length = 0;
      for (let i = first + 1; i < last; i++) length += distance(mm, i - 1, i);
      lines.push({ first, last, length });
      first = last;
    }
    return { mm, lines, colors: window.difftract.decode(colors) };
  }

  function distance(mm, i, j) {
    return Math.hypot(mm[3 * j] - mm[3 * i], mm[3 * j + 1] - mm[3 * i + 1],
      mm[3 * j + 2] - mm[3 * i + 2]);
  }

  // Grey values of the whole grid; -1 outside the brain.
  function readBrain({ shape, origin_mm, spacing_mm, runs, grey }) {
    const values = new Int16Array(shape[0] * shape[1] * shape[2]).fill(-1);
    const inside = window.difftract.decode(grey);
    let place = 0, next = 0, isInside = false;
    for (const run of window.difftract.decode(runs)) {
      if (isInside) for (let i = 0; i < run; i++) values[place + i] = inside[next++];
      place += run;
      isInside = !isInside;
    }
    return { shape, origin_mm, spacing_mm, values };
  }

  function slice(brain, axis, at_mm) {
    const { shape, origin_mm, spacing_mm, values } = brain;
    const [across, up] = [0, 1, 2].filter((other) => other !== axis);
    const at = Math.round((at_mm - origin_mm[axis]) / spacing_mm);
    const place = (i, axis) => origin_mm[axis] + i * spacing_mm;
    const trace = { x: [], y: [], z: [], surfacecolor: [] };
    for (let j = 0; j < shape[up]; j++) {
      const rows = [[], [], []], greys = [];
      for (let i = 0; i < shape[across]; i++) {
        const voxel = [];
        voxel[axis] = at;
        voxel[across] = i;
        voxel[up] = j;
        const value = values[(voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]];
        for (const a of [0, 1, 2]) rows[a].push(value < 0 ? NaN : place(voxel[a], a));
        greys.push(value < 0 ? NaN : value);
      }
      AXES.forEach((name, a) => trace[name].push(rows[a]));
      trace.surfacecolor.push(greys);
    }
    return trace;
  }

  // Squared distance of a point to the segment from vertex i to the next.
  function squaredDistance(mm, i, point) {
    let along = 0, squared = 0;
    for (let a = 0; a < 3; a++) {
      const step = mm[3 * i + 3 + a] - mm[3 * i + a];
      along += (point[a] - mm[3 * i + a]) * step;
      squared += step * step;
    }
    const share = squared > 0 ? Math.min(Math.max(along / squared, 0), 1) : 0;
    let result = 0;
    for (let a = 0; a < 3; a++) {
      const step = mm[3 * i + 3 + a] - mm[3 * i + a];
      result += (mm[3 * i + a] + share * step - point[a]) ** 2;
    }
    return result;
  }

  function passes({ mm }, { first, last }, point, radius) {
    for (let i = first; i + 1 < last; i++) {
      if (squaredDistance(mm, i, point) <= radius * radius) return true;
    }
    return false;
  }

  // The shares of segment i between which it lies in the corner that is cut away.
  function cutPart(mm, i, corner) {
    let from = 0, to = 1;
    for (const { a, at, sign } of corner) {
      const start = sign * (mm[3 * i + a] - at), stop = sign * (mm[3 * i + 3 + a] - at);
      if (start <= 0 && stop <= 0) return null;
      if (start < 0) from = Math.max(from, start / (start - stop));
      else if (stop < 0) to = Math.min(to, start / (start - stop));
    }
    return from < to ? [from, to] : null;
  }

  // Coordinates of the streamlines that are to be seen, with NaN between pieces.
  function piecesOf({ mm, colors }, lines, corner) {
    const out = { x: [], y: [], z: [], color: [] };
    const add = (i, share) => {
      AXES.forEach((name, a) => {
        const start = mm[3 * i + a];
        out[name].push(share ? start + share * (mm[3 * i + 3 + a] - start) : start);
      });
      out.color.push(colors[share > 0.5 ? i + 1 : i]);
    };
    const pause = () => {
      if (!out.x.length || Number.isNaN(out.x[out.x.length - 1])) return;
      for (const name of AXES) out[name].push(NaN);
      out.color.push(0);
    };
    for (const { first, last } of lines) {
      pause();
      for (let i = first; i + 1 < last; i++) {
        const cut = corner.length ? cutPart(mm, i, corner) : null;
        if (!cut) {
          add(i, 0);
          if (i + 2 === last) add(i + 1, 0);
          continue;
        }
        if (cut[0] > 0) {
          add(i, 0);
          add(i, cut[0]);
        }
        pause();
        if (cut[1] < 1) {
          add(i, cut[1]);
          if (i + 2 === last) add(i + 1, 0);
        }
      }
    }
    return out;
  }

  // Three circles that show the ball.
  function ball(point, radius) {
    const trace = { x: [], y: [], z: [] };
    for (let axis = 0; axis < 3; axis++) {
      for (let step = 0; step <= 64; step++) {
        const angle = (2 * Math.PI * step) / 64;
        const offset = [radius * Math.cos(angle), radius * Math.sin(angle)];
        AXES.forEach((name, a) => trace[name].push(point[a] + (a === axis ? 0 : offset.pop())));
      }
      for (const name of AXES) trace[name].push(NaN);
    }
    return trace;
  }

  function letters([low, high]) {
    const middle = low.map((value, a) => (value + high[a]) / 2);
    const trace = { x: [], y: [], z: [], text: [] };
    SIDES.forEach((pair, axis) => pair.forEach((letter, end) => {
      AXES.forEach((name, a) => trace[name].push(a === axis ? [low, high][end][a] : middle[a]));
      trace.text.push(letter);
    }));
    return trace;
  }

  const QUIET = { hoverinfo: "skip", showlegend: false, showscale: false };

  function layout(box, plot) {
    const size = box[0].map((low, a) => box[1][a] - low);
    const axis = (a) => ({ visible: false, range: [box[0][a], box[1][a]], autorange: false });
    const largest = Math.max(...size);
    return {
      margin: { l: 0, r: 0, t: 0, b: 0 },
      paper_bgcolor: "#000",
      scene: {
        bgcolor: "#000",
        xaxis: axis(0), yaxis: axis(1), zaxis: axis(2),
        aspectmode: "manual",
        aspectratio: { x: size[0] / largest, y: size[1] / largest, z: size[2] / largest },
        camera: camera("three-quarter", plot),
        dragmode: "turntable",
        hovermode: false,
      },
      uirevision: "kept",
    };
  }

  function camera(view, { clientWidth, clientHeight }) {
    const away = Math.max(1, (1.15 * clientHeight) / clientWidth); // the brain fits a phone, too
    const [x, y, z] = VIEWS[view].map((part) => part * away);
    return { eye: { x, y, z }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0.02 } };
  }

  function prepare(root) {
    const plot = root.querySelector(".view3d-plot");
    const inputs = Object.fromEntries(
      [...root.querySelectorAll("input")].map((input) => [input.name, input]));
    const data = window.difftract.dataOf(root);
    const cache = {};
    let streamlines, brain, busy = false, asked = false;

    const number = (name) => Number(inputs[name].value);
    const cross = () => AXES.map((name) => number(`at-${name}`));

    // In front of every slice that is seen from the eye, but for a layer upon it.
    function corner() {
      if (!inputs.cut.checked) return [];
      const { eye } = plot.layout.scene.camera;
      const at = cross(), far = Math.hypot(eye.x, eye.y, eye.z);
      const faces = (name) => inputs[`show-${name}`].checked && Math.abs(eye[name]) > EDGE_ON * far;
      return [0, 1, 2].filter((a) => faces(AXES[a])).map((a) => {
        const sign = Math.sign(eye[AXES[a]]);
        return { a, sign, at: at[a] + sign * number("layer") };
      });
    }

    function once(name, key, make) {
      if (!cache[name] || cache[name].key !== key) cache[name] = { key, value: make() };
      return cache[name].value;
    }

    function traces() {
      const at = cross(), radius = number("radius"), shortest = number("shortest");
      const chosen = once("chosen", [shortest, radius, radius && at].join(), () =>
        streamlines.lines.filter((line) => line.length >= shortest &&
          (!radius || passes(streamlines, line, at, radius))));
      const cut = corner();
      const pieces = once("pieces", JSON.stringify([shortest, radius, radius && at, cut]), () =>
        piecesOf(streamlines, chosen, cut));
      root.querySelector(".view3d-shown").textContent = chosen.length.toLocaleString("en");
      const slices = AXES.map((name, axis) => ({
        type: "surface", ...QUIET,
        ...once(name, at[axis], () => slice(brain, axis, at[axis])),
        visible: inputs[`show-${name}`].checked,
        cmin: 0, cmax: 255, opacity: number("opacity") / 100,
        colorscale: [[0, "#000000"], [1, "#d0d0d0"]],
        lighting: { ambient: 1, diffuse: 0, specular: 0, fresnel: 0 },
      }));
      const lines = {
        type: "scatter3d", mode: "lines", ...QUIET,
        x: pieces.x, y: pieces.y, z: pieces.z,
        visible: inputs["show-streamlines"].checked && pieces.x.length > 0,
        line: {
          width: number("width"), color: pieces.color, cmin: 0, cmax: data.palette.length - 1,
          colorscale: once("scale", 0, () =>
            data.palette.map((color, i, { length }) => [i / (length - 1), color])),
        },
      };
      const circles = {
        type: "scatter3d", mode: "lines", ...QUIET, ...ball(at, radius),
        visible: radius > 0, line: { color: "#ffffff", width: 3 },
      };
      const sides = {
        type: "scatter3d", mode: "text", ...QUIET, ...letters(data.letters_mm),
        textfont: { color: "#ffffff", size: 18 },
      };
      return [...slices, lines, circles, sides];
    }

    function writeValues() {
      for (const output of root.querySelectorAll("output[data-of]")) {
        const value = number(output.dataset.of);
        const axis = AXES.indexOf(output.dataset.of.replace("at-", ""));
        const side = axis < 0 || !value ? "" : ` ${SIDES[axis][value < 0 ? 0 : 1]}`;
        const amount = axis < 0 ? value : Math.abs(value);
        output.textContent = value === 0 && output.dataset.zero ? output.dataset.zero
          : `${Number(amount.toFixed(1))}${output.dataset.unit}${side}`;
      }
    }

    // Once a frame at most; what the sliders say meanwhile is drawn next.
    function update() {
      writeValues();
      asked = true;
      if (busy || root.dataset.ready !== "true") return;
      busy = true;
      requestAnimationFrame(async () => {
        asked = false;
        try {
          // It may have been cleared since.
          if (root.dataset.ready === "true") await window.Plotly.react(plot, traces(), plot.layout);
        } finally {
          busy = false;
          if (asked) update();
        }
      });
    }

    function move(camera) {
      if (root.dataset.ready === "true") window.Plotly.relayout(plot, { "scene.camera": camera });
    }

    // What passes through the ball is to be seen whole, also behind the slices.
    let sought = false;
    function seeThrough() {
      if (sought === number("radius") > 0) return;
      sought = !sought;
      inputs.opacity.value = sought ? 35 : 100;
      inputs.cut.checked = !sought;
    }

    function listen() {
      inputs.radius.addEventListener("input", seeThrough);
      for (const input of Object.values(inputs)) input.addEventListener("input", update);
      for (const button of root.querySelectorAll("button[data-view]")) {
        button.addEventListener("click", () => move(camera(button.dataset.view, plot)));
      }
      for (const button of root.querySelectorAll("button[data-zoom]")) {
        button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
      }
      listenToFingers();
      // The wheel scrolls the page until the view was taken hold of.
      let held = false;
      plot.addEventListener("pointerdown", () => { held = true; });
      plot.addEventListener("pointerleave", () => { held = false; });
      plot.addEventListener("wheel", (event) => {
        if (!held) event.stopPropagation();
      }, { capture: true });
    }

    function zoom(factor, from) {
      if (root.dataset.ready !== "true") return;
      const { eye, up, center } = from || plot.layout.scene.camera;
      move({ eye: { x: eye.x * factor, y: eye.y * factor, z: eye.z * factor }, up, center });
    }

    // Plotly turns the view under a finger, but keeps where it was, and knows no second finger.
    function listenToFingers() {
      let pinch = null;
      const apart = ([one, other]) =>
        Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const seen = () => plot._fullLayout.scene._scene.getCamera();
      const ours = (event) => {
        event.preventDefault();
        event.stopPropagation();
      };
      const touched = (event) => {
        const { touches } = event;
        if (root.dataset.ready !== "true" || (!pinch && touches.length < 2)) return;
        ours(event);
        if (touches.length !== 2) return; // what is left of a pinch turns nothing
        if (event.type === "touchstart" || !pinch) pinch = { camera: seen(), apart: apart(touches) };
        else zoom(pinch.apart / Math.max(apart(touches), 1), pinch.camera);
      };
      const left = (event) => {
        if (root.dataset.ready !== "true") return;
        if (!pinch) move(seen());
        if (!event.touches.length) pinch = null;
      };
      for (const type of ["touchstart", "touchmove"]) {
        plot.addEventListener(type, touched, { capture: true, passive: false });
      }
      for (const type of ["touchend", "touchcancel"]) plot.addEventListener(type, left);
    }

    writeValues();
    listen();
    root.scene = { clear: () => window.Plotly.purge(plot) };
    return async () => {
      streamlines = streamlines || readStreamlines(data.streamlines);
      brain = brain || readBrain(data.brain);
      plot.layout = layout(data.box_mm, plot);
      const options = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };
      await window.Plotly.newPlot(plot, traces(), plot.layout, options);
      if (plot.querySelector(".no-webgl")) throw new Error("the browser has no WebGL");
      plot.on("plotly_relayout", () => { if (inputs.cut.checked) update(); });
    };
  }

  window.difftract.serve("view3d", prepare);
})();
