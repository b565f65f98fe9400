// What the interactive figures of a page share: data inside the page, and drawing late.
"use strict";

window.difftract = window.difftract || (() => {
  // Browsers keep few canvases of WebGL alive: figures beyond that are cleared when out of sight.
  const MOST_SCENES = 6;
  const scenes = [];

  function decode({ type, base64 }) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new window[type](bytes.buffer);
  }

  function dataOf(root) {
    return JSON.parse(root.querySelector("script[type='application/json']").textContent);
  }

  function color(root, name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  function say(root, text) {
    root.dataset.ready = "failed";
    root.querySelector(".figure-message").textContent = text;
  }

  function clearOthers(root) {
    if (!root.scene) return;
    scenes.splice(0, scenes.length, ...scenes.filter((other) => other !== root), root);
    const hidden = scenes.filter((other) => !other.inSight && other !== root);
    while (scenes.length > MOST_SCENES && hidden.length) {
      const oldest = hidden.shift();
      scenes.splice(scenes.indexOf(oldest), 1);
      oldest.scene.clear();
      delete oldest.dataset.ready;
    }
  }

  async function draw(root) {
    if (root.dataset.ready) return;
    root.dataset.ready = "drawing";
    try {
      clearOthers(root);
      await root.draw();
      root.dataset.ready = "true";
    } catch (error) {
      say(root, `This figure could not be drawn here (${error.message}).`);
    }
  }

  // Calls prepare(root) for every root of a class, whose result draws when the root comes near.
  function serve(className, prepare) {
    const start = () => {
      for (const root of document.querySelectorAll(`.${className}`)) {
        if (root.draw) continue;
        if (!window.Plotly) {
          say(root, "The script that draws this figure is not in this page.");
          continue;
        }
        // Each by itself: figures after one that cannot be read are drawn all the same.
        try {
          root.draw = prepare(root);
        } catch (error) {
          say(root, `The data of this figure could not be read (${error.message}).`);
          continue;
        }
        root.dataset.prepared = "true";
        lookOut(root);
      }
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
  }

  function lookOut(root) {
    if (!window.IntersectionObserver) {
      draw(root);
      return;
    }
    const seen = (entries) => {
      root.inSight = entries[entries.length - 1].isIntersecting;
      if (root.inSight) draw(root);
    };
    new IntersectionObserver(seen, { rootMargin: "400px" }).observe(root);
  }

  return { decode, dataOf, color, serve };
})();
