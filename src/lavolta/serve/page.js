"use strict";
(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const KEPT = 240;
  const byId = (name) => document.getElementById(name);
  let answers = [], device = [], now = null, drawn = 0;

  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  function number(value, digits) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    const decimals = digits === undefined ? (size >= 100 ? 0 : size >= 10 ? 1 : 2) : digits;
    return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }
  const energy = (mj) => (known(mj) && mj >= 1000 ? unit(mj / 1e3, "J") : unit(mj, "mJ"));
  const unit = (value, name, digits) => (known(value) ? number(value, digits) + " " + name : "–");
  function say(name, text, bad) {
    const element = byId(name);
    if (element.textContent !== text) element.textContent = text;
    element.classList.toggle("bad", Boolean(bad));
  }
  function bar(name, share, bad) {
    byId(name).style.width = (known(share) ? 100 * Math.min(1, Math.max(0, share)) : 0) + "%";
    byId(name).classList.toggle("bad", Boolean(bad));
  }

  function make(parent, kind, attributes, text) {
    const element = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }

  // Round numbers within a range: three to five of them.
  function ticks(low, high) {
    const rough = (high - low) / 4 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) found.push(tick);
    return found;
  }
  function label(value) {
    return Math.abs(value) < 1e-12 ? "0" : String(Number(value.toPrecision(4)));
  }
  function span(values, floor) {
    let low = Math.min(...values), high = Math.max(...values);
    const air = 0.08 * (high - low) || 0.05 * Math.abs(high) || 1;
    low = floor === undefined ? low - air : Math.min(floor, low);
    return [low, high + air];
  }

  function plot(name, { points = [], curves = [], marks = [], x, y, seconds }) {
    const place = byId(name);
    place.replaceChildren();
    const width = place.clientWidth, height = place.clientHeight;
    if (!x || !y) {
      const empty = make(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
      make(empty, "text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet");
      return;
    }
    const svg = make(place, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.setAttribute("aria-label", place.parentElement.querySelector("h2").textContent);
    const rows = ticks(...y);
    const left = 12 + 7 * Math.max(...rows.map((tick) => label(tick).length)), bottom = 22, top = 8, right = 10;
    const atX = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
    const atY = (value) => height - bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (height - top - bottom);
    for (const tick of rows) {
      make(svg, "line", { class: "axis", x1: left, x2: width - right, y1: atY(tick), y2: atY(tick) });
      make(svg, "text", { x: left - 6, y: atY(tick) + 4, "text-anchor": "end" }, label(tick));
    }
    const columns = ticks(...x).filter((tick) => atX(tick) <= width - right - 8);
    for (const tick of columns) {
      make(svg, "text", { x: atX(tick), y: height - 5, "text-anchor": "middle" }, seconds ? clockWords(tick) : label(tick));
    }
    for (const curve of curves) {
      const path = curve.points.map(([a, b], i) => (i ? (curve.step ? `H${atX(a)}V` : `L${atX(a)} `) : `M${atX(a)} `) + atY(b));
      if (path.length) make(svg, "path", { class: curve.kind || "curve", d: path.join("") });
    }
    for (const mark of marks) {
      make(svg, "line", { class: "bad", x1: left, x2: width - right, y1: atY(mark), y2: atY(mark) });
    }
    for (const [a, b, kind] of points) make(svg, "circle", { class: kind || "", cx: atX(a), cy: atY(b), r: 3 });
  }
  function clockWords(seconds) {
    if (seconds < 120) return `${Math.round(seconds)} s`;
    return seconds < 7200 ? `${Number((seconds / 60).toFixed(1))} min` : `${Number((seconds / 3600).toFixed(1))} h`;
  }

  function overTime(name, pick, floor) {
    const points = device.map((each) => [each.time_s, pick(each)]).filter(([, value]) => known(value));
    if (points.length < 2) return plot(name, {});
    const times = points.map(([time]) => time), values = points.map(([, value]) => value);
    plot(name, { curves: [{ points, step: name === "plot-clock" }], x: [times[0], times[times.length - 1]], y: span(values, floor), seconds: true });
  }

  function draw() {
    if (!now) return;
    if (answers.length) {
      const at = answers.map((each) => each.index);
      const x = [at[0], Math.max(at[at.length - 1], at[0] + 1)];
      plot("plot-latency", {
        points: answers.map((each) => [each.index, each.response_ms, each.in_time ? "" : "late"]),
        curves: [{ kind: "soft", points: answers.map((each) => [each.index, each.p99_ms]) }],
        marks: [now.deadline_ms], x, y: span([...answers.map((each) => each.response_ms), now.deadline_ms], 0),
      });
      const joules = Math.max(...answers.map((each) => each.energy_mj)) >= 1000, scale = joules ? 1e-3 : 1;
      const spent = answers.map((each) => scale * each.energy_mj);
      plot("plot-energy", { points: spent.map((value, place) => [at[place], value]), x, y: span(spent, 0) });
      say("energy-unit", joules ? "J" : "mJ");
      const both = span(answers.flatMap((each) => [each.run_ms, each.predicted_ms]), 0);
      plot("plot-truth", {
        points: answers.map((each) => [each.predicted_ms, each.run_ms]),
        curves: [{ kind: "soft", points: [[0, 0], [both[1], both[1]]] }], x: both, y: both,
      });
    } else {
      for (const name of ["plot-latency", "plot-energy", "plot-truth"]) plot(name, {});
    }
    const cluster = now.device.cluster;
    overTime("plot-charge", (each) => (known(each.charge_share) ? 100 * each.charge_share : null));
    overTime("plot-clock", (each) => each.freq_mhz[cluster], 0);
    overTime("plot-heat", (each) => each.temperature_c);
  }

  function tiles() {
    const { recent, totals, last } = now, cluster = now.device.cluster;
    say("where", `La Volta · ${now.device.name}${now.device.simulated ? " (simulated" + (now.device.speed === 1 ? ")" : ", " + now.device.speed + " times as fast)") : ""}`);
    say("title", `${now.model}, due after ${unit(now.deadline_ms, "ms", now.deadline_ms % 1 ? 1 : 0)}`);
    say("goal", now.goal[0].toUpperCase() + now.goal.slice(1) + ".");
    say("charge", known(now.charge_share) ? number(100 * now.charge_share, 1) + " %" : "–", known(now.charge_share) && now.charge_share < 0.1);
    bar("charge-bar", now.charge_share, known(now.charge_share) && now.charge_share < 0.1);
    const feed = now.on_ac === null ? "" : now.on_ac ? "on mains" : "on battery";
    say("charge-more", [feed, known(now.power_mw) ? unit(now.power_mw / 1e3, "W") : ""].filter(Boolean).join(", "));
    const mhz = now.freq_mhz[cluster], limit = now.freq_limit_mhz[cluster];
    say("clock", unit(known(mhz) ? mhz : last && last.freq_mhz, "MHz", 0));
    bar("clock-bar", known(mhz) && known(limit) ? mhz / limit : null);
    say("clock-more", { sets: "set by the governor", follows: "chosen by the system", none: "not seen; times are learned" }[now.clock]);
    say("heat", unit(now.temperature_c, "°C", 1));
    say("heat-more", known(now.temperature_c) ? "hottest sensor" : "no thermometer");
    say("level", now.level === null ? "–" : now.level);
    say("level-more", last ? last.reason : "no answer yet");
    const late = known(recent.response_ms_p99) && recent.response_ms_p99 > now.deadline_ms;
    say("latency", unit(recent.response_ms_p99, "ms"), late);
    bar("latency-bar", known(recent.response_ms_p99) ? recent.response_ms_p99 / now.deadline_ms : null, late);
    say("latency-more", known(recent.response_ms_p50) ? `median ${unit(recent.response_ms_p50, "ms")}, of ${unit(now.deadline_ms, "ms", 0)}` : "");
    say("late", String(totals.late), totals.late > 0);
    const refused = Object.values(totals.refused).reduce((sum, each) => sum + each, 0);
    say("late-more", `of ${totals.answers.toLocaleString("en")}; ${refused} without answer; ${now.queue.depth} wait or run`);
    say("energy", energy(recent.energy_mj));
    say("energy-more", known(recent.drawn_mj_per_answer) ? `${energy(recent.drawn_mj_per_answer)} with idle time` : "predicted, idle time left out");
    say("truth", known(recent.run_over_predicted) ? number(recent.run_over_predicted, 2) + " ×" : "–");
    say("truth-more", known(recent.within_p99) ? `${number(100 * recent.within_p99, 0)} % within the expected` : "");
    byId("plug").hidden = !now.device.simulated;
    byId("plug").textContent = now.on_ac ? "Unplug" : "Plug in";
    byId("unknown-card").hidden = now.unknown.length === 0;
    byId("unknown").replaceChildren(...now.unknown.map((words) => {
      const item = document.createElement("li");
      item.textContent = words;
      return item;
    }));
    dial();
  }

  function dial() {
    const place = byId("dial");
    if (place.children.length !== now.levels.length) {
      place.replaceChildren(...now.levels.map((name) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(name + " ", document.createElement("small"));
        button.addEventListener("click", () => post("v1/level", { level: now.pinned === name ? null : name }));
        return button;
      }));
    }
    now.levels.forEach((name, place_) => {
      const button = place.children[place_];
      button.classList.toggle("now", now.level === name);
      button.setAttribute("aria-pressed", String(now.pinned === name));
      button.lastChild.textContent = (now.totals.by_level[name] || 0).toLocaleString("en");
    });
    say("dial-more", now.pinned === null
      ? "The governor chooses. Press a level to hold it, press it again to let the governor choose."
      : `Held at ${now.pinned}. Press it again to let the governor choose.`);
  }

  async function post(path, fields) {
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) });
    const found = await reply.json();
    if (!reply.ok) say("answer", found.error.message, true);
    return reply.ok ? found : null;
  }
  byId("plug").addEventListener("click", () => post("v1/plug", { on_ac: !now.on_ac }));
  byId("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = byId("text").value;
    say("answer", "…");
    try {
      const found = await post("v1/encode", { text, truncate: true });
      if (found) say("answer", `${found.level} at ${number(found.freq_mhz, 0)} MHz answered after ${unit(found.response_ms, "ms")}, ${found.in_time ? "in time" : "late"}.`, !found.in_time);
    } catch {
      say("answer", "The server does not answer.", true);
    }
  });

  function state(word, kind) {
    byId("state").textContent = word;
    byId("state").className = "state " + kind;
  }
  const events = new EventSource("v1/events");
  events.addEventListener("history", (event) => ({ answers, device } = JSON.parse(event.data)));
  events.addEventListener("status", (event) => {
    const before = now;
    now = JSON.parse(event.data);
    answers = answers.concat(now.answers).slice(-KEPT);
    if (!before || now.uptime_s - drawn >= 1 || now.uptime_s < drawn) {
      drawn = now.uptime_s;
      device.push({ time_s: now.uptime_s, charge_share: now.charge_share, temperature_c: now.temperature_c, freq_mhz: now.freq_mhz });
      if (device.length > 2 * KEPT + KEPT) device = device.filter((_, place) => place % 2 === 0);
    }
    state(now.stopping ? "stopping" : "live", now.stopping ? "lost" : "live");
    tiles();
    draw();
  });
  events.addEventListener("error", () => state("no answer, trying again", "lost"));
  window.addEventListener("resize", draw);
})();
