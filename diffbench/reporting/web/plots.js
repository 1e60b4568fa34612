// Figures that are drawn here by plotly, in place of their pictures.
const SYMBOLS = {
  o: ["circle", "M18 2a4 4 0 1 0 .01 0z"],
  s: ["square", "M14 2h8v8h-8z"],
  D: ["diamond", "M18 1l5 5-5 5-5-5z"],
  "^": ["triangle-up", "M18 1l5 9h-10z"],
  v: ["triangle-down", "M18 11l5-9h-10z"],
  P: ["cross", "M16.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"],
  X: ["x", "M15 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z"],
  _: ["line-ew-open", "M13 5.5h10v1h-10z"],
};
const SIZES = { "^": 9, v: 9, _: 9 };
const DASHES = { "-": "solid", "--": "dash", ":": "dot" };
const NARROW = 640;
// The height of a panel, in pixels.
const ALONE = 380;
const AMONG = 300;
// A logarithmic axis that spans fewer decades has plain numbers at its ticks, no powers of ten.
const PLAIN_DECADES = 2.5;

// Of plotly's buttons others link to its makers' server.
const BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [BUTTONS], plotlyServerURL: "" };

// plotly reads some HTML in words.
const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("\n", "<br>");
const coloured = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const inkOf = (colour) => (colour === "#000000" ? coloured("text") : colour);

function drawnTrace({ legend, style, x, y, low, high, words }, panel, band) {
  const colour = inkOf(style.colour);
  const axes = { xaxis: `x${panel}`, yaxis: `y${panel}`, name: legend, showlegend: false };
  const marker = style.marker && {
    symbol: SYMBOLS[style.marker][0],
    size: SIZES[style.marker] ?? 7,
    color: style.hollow ? coloured("back") : colour,
    line: { color: colour, width: style.hollow || style.marker === "_" ? 1.2 : 0 },
  };
  const mode = [style.dash && "lines", style.marker && "markers"].filter(Boolean).join("+") || "none";
  const line = { color: colour, width: 1.5, dash: DASHES[style.dash] };
  const points = { ...axes, type: "scatter", x, y, mode, line, hoverinfo: "text", hovertext: words.map(literal) };
  if (marker) points.marker = marker;
  if (!low.some((end) => end !== null)) return [points];
  if (band) {
    const edge = { x: [...x, ...x.toReversed()], y: [...low, ...high.toReversed()] };
    const fill = { fill: "toself", fillcolor: `${style.colour}33`, line: { width: 0 }, mode: "lines", hoverinfo: "skip" };
    return [{ ...axes, ...edge, ...fill, type: "scatter" }, points];
  }
  const away = (ends, sign) => ends.map((end, i) => (end === null ? NaN : sign * (end - y[i])));
  const bars = { array: away(high, 1), arrayminus: away(low, -1), thickness: 1, width: 3, color: colour };
  return [{ ...points, error_y: { ...bars, type: "data", symmetric: false } }];
}

function tracesOf(panel, n, band) {
  // Without any trace there are no axes.
  if (panel.nothing) return [{ type: "scatter", name: "", x: [null], y: [null], xaxis: `x${n}`, yaxis: `y${n}`, showlegend: false }];
  return panel.traces.flatMap((each) => drawnTrace(each, n, band));
}

// The ticks of a logarithmic axis: of few decades plain numbers, at 1, 2 and 5 unless that leaves too few.
function ticksOf(values) {
  const above = values.filter((value) => value > 0);
  const decades = Math.log10(Math.max(...above) / Math.min(...above));
  if (!(decades < PLAIN_DECADES)) return {};
  return decades > 0.7 ? { tickformat: "~g", dtick: "D2" } : { tickformat: "~g" };
}

function axesOf(panel, place, x) {
  const n = place + 1;
  const common = { gridcolor: coloured("line"), linecolor: coloured("text"), showline: true, zeroline: false, automargin: true };
  const words = (text) => ({ text: literal(text), standoff: 8 });
  const scale = (name, values) =>
    panel.log.includes(name) ? { type: "log", ...ticksOf(values) } : {};
  const all = (name) => panel.traces.flatMap((trace) => trace[name]);
  const xaxis = { ...common, title: words(x), ...scale("x", all("x")) };
  const yaxis = { ...common, title: words(panel.y), ...scale("y", all("y")) };
  if (panel.ticks.length) {
    const [values, named] = [0, 1].map((i) => panel.ticks.map((tick) => tick[i]));
    Object.assign(xaxis, { tickvals: values, ticktext: named.map(literal), showgrid: false });
  }
  if (panel.bottom !== null) {
    const at = (value) => (yaxis.type === "log" ? Math.log10(value) : value);
    const top = Math.max(...all("y"));
    Object.assign(yaxis, { range: [at(panel.bottom), at(top) + 0.05 * (at(top) - at(panel.bottom))], autorange: false });
  }
  if (panel.nothing) for (const axis of [xaxis, yaxis]) Object.assign(axis, { showticklabels: false, showgrid: false });
  return { [`xaxis${n}`]: xaxis, [`yaxis${n}`]: yaxis };
}

function annotationsOf({ title, nothing }, place) {
  const on = { xref: `x${place + 1} domain`, yref: `y${place + 1} domain`, showarrow: false };
  const found = [];
  if (title) found.push({ ...on, x: 0, y: 1.02, yanchor: "bottom", xanchor: "left", align: "left", text: literal(title) });
  if (nothing) found.push({ ...on, x: 0.5, y: 0.5, text: literal(nothing), font: { size: 11 } });
  return found;
}

// What plotly draws of a plot in some width; `hidden` are the words in the legend of what is not shown.
function figureOf(plot, width, hidden) {
  const columns = width < NARROW ? 1 : Math.min(plot.columns, plot.panels.length);
  const rows = Math.ceil(plot.panels.length / columns);
  const height = columns === 1 && rows === 1 ? ALONE : AMONG;
  const traces = plot.panels.flatMap((panel, i) => tracesOf(panel, i + 1, plot.band));
  for (const trace of traces) trace.visible = !hidden.has(trace.name);
  const titled = plot.panels.some((panel) => panel.title);
  const layout = {
    ...Object.assign({}, ...plot.panels.map((panel, i) => axesOf(panel, i, plot.x))),
    annotations: plot.panels.flatMap(annotationsOf),
    grid: { rows, columns, pattern: "independent", xgap: 0.25, ygap: titled ? 0.35 : 0.25 },
    height: height * rows,
    margin: { l: 50, r: 10, t: titled ? 50 : 30, b: 40 },
    font: { family: "system-ui, sans-serif", size: 12, color: coloured("text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: coloured("text"), activecolor: coloured("link") },
    hovermode: "closest",
    // A finger that drags scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  };
  return [traces, layout, CONFIG];
}

// A line's look, and its words, as a button that hides it.
function legendButton({ legend, style }, changed) {
  const colour = inkOf(style.colour);
  const dashes = { "--": "5 3", ":": "2 2" }[style.dash] ?? "";
  const line = style.dash ? `<path d="M1 6h34" stroke="${colour}" stroke-width="1.5" stroke-dasharray="${dashes}"/>` : "";
  const fill = style.hollow ? coloured("back") : colour;
  const mark = style.marker ? `<path d="${SYMBOLS[style.marker][1]}" fill="${fill}" stroke="${colour}"/>` : "";
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  button.innerHTML = `<svg viewBox="0 0 36 12" width="36" height="12" aria-hidden="true">${line}${mark}</svg>`;
  button.append(legend);
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    changed(legend, shown);
  });
  return button;
}

function legendOf(plot, changed) {
  const marked = new Map();
  for (const trace of plot.panels.flatMap((panel) => panel.traces)) {
    // Of a fitted line and its points, both.
    const { style } = marked.get(trace.legend) ?? trace;
    const merged = { ...style, marker: style.marker || trace.style.marker, dash: style.dash || trace.style.dash };
    marked.set(trace.legend, { legend: trace.legend, style: merged });
  }
  const list = document.createElement("div");
  list.className = "legend";
  list.append(...[...marked.values()].map((each) => legendButton(each, changed)));
  return list;
}

function interactive(figure, plot) {
  const place = document.createElement("div");
  const hidden = new Set();
  const wide = () => figure.clientWidth >= NARROW;
  const draw = () => Plotly.react(place, ...figureOf(plot, figure.clientWidth, hidden));
  const changed = (legend, shown) => {
    hidden[shown ? "delete" : "add"](legend);
    draw();
  };
  const whole = document.createElement("div");
  whole.className = "plot";
  whole.setAttribute("role", "group");
  whole.setAttribute("aria-label", figure.querySelector("img").alt);
  const dressed = () => whole.replaceChildren(place, legendOf(plot, changed));
  dressed();
  figure.prepend(whole);
  figure.classList.add("drawn");
  draw();
  let before = wide();
  addEventListener("resize", () => {
    if (wide() !== before) draw();
    before = wide();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    hidden.clear();
    dressed();
    draw();
  });
}

// plotly itself, a large script, which is text until a figure needs it.
function loaded() {
  if (globalThis.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

// Each is drawn when it is about to be seen.
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      loaded();
      interactive(target, data.plots[target.id.replace("figure-", "")]);
    }
  },
  { rootMargin: "600px" },
);
for (const name of Object.keys(data.plots)) near.observe(document.getElementById(`figure-${name}`));
