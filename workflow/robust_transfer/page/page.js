"use strict";
// Draws the charts, and fills the table beside each with the rows that its controls keep.
for (const box of document.querySelectorAll(".chart")) {
  const described = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const body = box.querySelector("tbody");
  const said = box.querySelector(".said");

  const keeps = (row, chosen) =>
    described.controls.filter(({ name, column, all }) =>
      (all && chosen[name] === "all") || String(row[column]) === String(chosen[name]));

  const chosenIn = (view) =>
    Object.fromEntries(described.controls.map(({ name }) => [name, view.signal(name)]));

  const fill = (rows) => {
    body.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...described.columns.map((column) => {
        const cell = document.createElement("td");
        cell.textContent = row[column] === null || row[column] === undefined ? "" : String(row[column]);
        return cell;
      }));
      return line;
    }));
  };

  // Not every combination was measured: the other controls then move to the nearest one that was.
  const settle = (view, changed) => {
    const chosen = chosenIn(view);
    const whole = described.controls.length;
    let rows = described.rows.filter((row) => keeps(row, chosen).length === whole);
    said.textContent = "";
    if (rows.length === 0 && changed) {
      const possible = described.rows.filter((row) => keeps(row, chosen).some(({ name }) => name === changed));
      let nearest = possible[0];
      for (const row of possible) {
        if (keeps(row, chosen).length > keeps(nearest, chosen).length) nearest = row;
      }
      if (nearest) {
        for (const { name, column, all } of described.controls) {
          if (!(all && chosen[name] === "all")) view.signal(name, String(nearest[column]));
        }
        said.textContent = "That combination was not measured; the nearest one that was is shown.";
        view.runAsync();
        rows = described.rows.filter((row) => keeps(row, chosenIn(view)).length === whole);
      }
    }
    fill(rows);
  };

  const options = { actions: false, ast: true, renderer: "svg", bind: box.querySelector(".controls") };
  vegaEmbed(box.querySelector(".drawn"), described.spec, options).then(({ view }) => {
    box.querySelector(".drawn").dataset.ready = "true";
    if (described.controls.length === 0) return;
    for (const { name } of described.controls) view.addSignalListener(name, () => settle(view, name));
    settle(view, null);
  }).catch((error) => { said.textContent = `The chart could not be drawn: ${error.message}`; });
}
