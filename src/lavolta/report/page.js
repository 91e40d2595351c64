"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function colors() {
    const style = getComputedStyle(document.documentElement);
    return { ink: style.getPropertyValue("--ink").trim(), line: style.getPropertyValue("--line").trim() };
  }

  function themed(layout) {
    const { ink, line } = colors();
    const size = window.innerWidth < 560 ? 12 : 13;
    const axis = (own) => ({
      gridcolor: line, zerolinecolor: line, linecolor: line, ...own, title: { font: { size }, ...own.title },
    });
    return {
      margin: { l: 8, r: 12, t: 26, b: 8 },
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      dragmode: false,
      font: { family: "system-ui, sans-serif", size, color: ink },
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
    };
  }

  function draw() {
    for (const [key, figure] of Object.entries(figures)) {
      Plotly.react("chart-" + key, figure.data, themed(figure.layout), { displayModeBar: false, responsive: true });
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
