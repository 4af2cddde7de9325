"use strict";
// The page's own script: it connects the tables, figures and records of the document to their libraries. Text of records
// is never parsed as HTML here; it is in the document already, escaped by the template.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;

  // Columns of a leaderboard: whether a row is the paper's only, method, model, values, protocol, hardware, task.
  const columnOf = (facet, count) => [count - 1, 2, 1, count - 3, count - 2][facet];
  const quiet = { paging: false, info: false, autoWidth: false, order: [], language: { search: "Search" } };
  const noSearch = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };

  // An empty cell of a column of numbers, which DataTables takes for minus infinity, comes last in both directions.
  const emptyLast = (sign) => (one, other) =>
    one === other ? 0 : one === -Infinity ? 1 : other === -Infinity ? -1 : sign * (one - other);
  for (const type of ["num", "num-fmt", "html-num", "html-num-fmt"]) {
    const { pre } = DataTable.type(type).order;
    DataTable.type(type, "order", { pre, asc: emptyLast(1), desc: emptyLast(-1) });
  }

  for (const section of document.querySelectorAll("section.board")) {
    const element = section.querySelector("table");
    if (!element) continue;
    const count = element.tHead.rows[0].cells.length;
    const table = new DataTable(element, {
      ...quiet,
      orderFixed: { pre: [[0, "asc"]] },
      columnDefs: [
        { targets: 0, visible: false, searchable: false },
        { targets: "constant", visible: false },
      ],
      rowGroup: { enable: false, dataSrc: 0 },
    });
    section.querySelector(".controls").append(section.querySelector(".dt-search"));
    table.on("draw", () => {
      // DataTables tells a screen reader the direction of the fixed order instead of that of the column.
      for (const head of element.querySelectorAll("th[aria-sort]")) {
        head.setAttribute("aria-sort", head.classList.contains("dt-ordering-desc") ? "descending" : "ascending");
      }
    });
    for (const select of section.querySelectorAll("select[data-facet]")) {
      select.addEventListener("change", () => {
        const chosen = select.value;
        const column = columnOf(Number(select.dataset.facet), count);
        // The text that DataTables passes has no diacritics.
        const matches = (text, row, index) => table.cell(index, column).node().textContent === chosen;
        table.column(column).search(chosen === "" ? "" : matches).draw();
      });
    }
    section.querySelector("select.group").addEventListener("change", (event) => {
      const chosen = event.target.value;
      if (chosen === "") {
        table.rowGroup().disable();
        table.order.fixed({ pre: [[0, "asc"]] });
      } else {
        const column = columnOf(Number(chosen), count);
        table.rowGroup().dataSrc(column).enable();
        table.order.fixed({ pre: [[column, "asc"], [0, "asc"]] });
      }
      table.draw();
    });
  }
  for (const element of document.querySelectorAll("table.sortable")) {
    const searching = element.tBodies[0].rows.length > 20;
    const scroll = element.closest(".scroll");
    new DataTable(element, { ...quiet, searching, layout: searching ? { topEnd: "search" } : noSearch });
    if (searching) scroll.before(scroll.querySelector(".dt-search"));
  }

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const axisNames = (layout) => ["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d+$/.test(key))];
  function themed(layout) {
    const merged = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), size: 13 },
      margin: { l: 60, r: 15, t: 15, b: 50 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", maxheight: 2000 },
      hoverlabel: { font: { size: 13 } },
    };
    for (const name of axisNames(layout)) {
      const title = { ...layout[name]?.title, standoff: 10 };
      merged[name] = { automargin: true, gridcolor: colour("--line"), zeroline: false, ...layout[name], title };
    }
    return merged;
  }
  const drawn = new Map();
  function draw(element, traces, layout) {
    drawn.set(element, [traces, layout]);
    Plotly.react(element, traces, themed(layout), { responsive: true, displayModeBar: false });
  }
  // A long legend, which stands above the plot, would leave it no room.
  function makeRoom(element) {
    const legend = element.querySelector(".legend");
    if (!legend) return;
    const lines = legend.getBBox().height;
    if (lines < 60) return;
    element.style.height = `${element.clientHeight + lines - 30}px`;
    Plotly.Plots.resize(element);
  }
  function narrow(layout) {
    // On a phone, the panels of a wide figure stand below each other.
    if (!layout.grid || window.innerWidth > 700) return layout;
    return { ...layout, grid: { ...layout.grid, rows: layout.grid.columns, columns: 1 } };
  }
  for (const element of document.querySelectorAll("main .plot")) {
    const figure = data.figures[element.dataset.figure];
    const layout = narrow(figure.layout);
    if (layout !== figure.layout) element.style.height = `${16 * layout.grid.rows}rem`;
    draw(element, figure.data, layout);
    makeRoom(element);
  }

  function setTheme(dark) {
    root.classList.toggle("dark", dark);
    for (const [element, [traces, layout]] of drawn) {
      if (element.isConnected) draw(element, traces, layout);
      else drawn.delete(element);
    }
  }
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(preferred.matches);
  preferred.addEventListener("change", (event) => setTheme(event.matches));
  document.getElementById("theme").addEventListener("click", () => setTheme(!root.classList.contains("dark")));

  const showImages = (within) => {
    for (const image of within.querySelectorAll("img[data-image]")) {
      const address = data.images[image.dataset.image];
      if (address) image.src = address;
    }
  };
  showImages(document);

  for (const section of document.querySelectorAll("section.questions")) {
    const category = section.querySelector(".category");
    const disputed = section.querySelector(".disputed");
    const filter = () => {
      for (const card of section.querySelectorAll(".card")) {
        const { category: own, disputed: open } = card.dataset;
        card.hidden = (category.value !== "" && own !== category.value) || (disputed.value !== "" && open !== "yes");
      }
    };
    category.addEventListener("change", filter);
    disputed.addEventListener("change", filter);
  }

  for (const select of document.querySelectorAll("select[data-inside]")) {
    const name = select.dataset.inside;
    const { values, images } = data.samples[name];
    const image = select.closest(".inside").querySelector("img.sample");
    const element = document.querySelector(`.plot[data-figure="${name}"]`);
    const cells = [...element.closest("figure").querySelectorAll("details tbody tr")].map((row) => [...row.cells].slice(1));
    select.addEventListener("change", () => {
      const [mean] = data.figures[name].data;
      const address = data.images[images[select.value]];
      const shown = values[select.value] ?? mean.z;
      draw(element, [{ ...mean, z: shown }], data.figures[name].layout);
      // A value of zero is left empty in the figure.
      cells.forEach((row, down) => row.forEach((cell, across) => (cell.textContent = (shown[down][across] ?? 0).toFixed(3))));
      image.hidden = !address;
      if (address) image.src = address;
    });
  }

  const dialog = document.getElementById("records");
  const opened = document.getElementById("opened");
  function openRecords() {
    const match = /^#runs=([0-9a-f,]+)$/.exec(location.hash);
    const hashes = match ? match[1].split(",") : [];
    const found = hashes.map((hash) => document.getElementById(`run-${hash}`)).filter(Boolean);
    if (!found.length) {
      dialog.close(); // the browser went back to an address without runs
      return;
    }
    opened.replaceChildren(...found.map((template) => template.content.cloneNode(true)));
    showImages(opened);
    for (const details of opened.querySelectorAll("details.run")) {
      details.addEventListener("toggle", () => drawLosses(details));
    }
    opened.querySelector("details.run").open = true;
    if (!dialog.open) dialog.showModal();
  }
  function drawLosses(details) {
    const element = details.querySelector(".plot.loss");
    if (!element || !details.open || drawn.has(element)) return;
    const axes = { xaxis: { title: { text: "optimiser step" } }, yaxis: { title: { text: "loss" }, type: "log", tickformat: "~g" } };
    const { x, y } = data.losses[element.dataset.losses];
    draw(element, [{ type: "scatter", mode: "lines", x, y }], axes);
    const body = details.querySelector(".losses tbody");
    x.forEach((step, place) => {
      const row = body.insertRow();
      for (const value of [step, y[place]]) row.insertCell().textContent = value;
    });
  }
  window.addEventListener("hashchange", openRecords);
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    opened.replaceChildren();
    if (location.hash.startsWith("#runs=")) history.replaceState(null, "", location.pathname + location.search);
  });
  openRecords();
})();
