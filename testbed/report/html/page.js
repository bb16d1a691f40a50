"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("matrix");
  const rows = [...table.tBodies[0].rows];
  const chips = [...document.querySelectorAll(".chip")];

  function filter() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const group = byId("group").value;
    const column = byId("column").value;
    const outcomes = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.outcome));
    const heads = [...table.tHead.rows[0].cells].slice(1);
    // a word that names a column narrows the columns, any other the cases
    const isColumnWord = (word) => heads.some((head) => head.dataset.text.includes(word)) && !rows.some((row) => row.dataset.text.includes(word));
    const columnWords = words.filter(isColumnWord);
    const rowWords = words.filter((word) => !isColumnWord(word));
    const shownColumns = new Set(heads.filter((head) => (column === "" || head.dataset.column === column) && columnWords.every((word) => head.dataset.text.includes(word))).map((head) => head.dataset.column));
    for (const head of heads) head.hidden = !shownColumns.has(head.dataset.column);
    let runs = 0;
    for (const row of rows) {
      let matching = 0;
      for (const cell of [...row.cells].slice(1)) {
        cell.hidden = !shownColumns.has(cell.dataset.column);
        const link = cell.querySelector("a");
        if (!link) continue;
        const isWanted = outcomes.has(cell.dataset.outcome);
        link.classList.toggle("faded", !isWanted);
        if (isWanted && !cell.hidden) matching += 1;
      }
      row.hidden = !matching || (group !== "" && row.dataset.group !== group) || !rowWords.every((word) => row.dataset.text.includes(word));
      if (!row.hidden) runs += matching;
    }
    byId("shown").textContent = `${runs} runs of ${rows.filter((row) => !row.hidden).length} cases`;
  }

  function show(scroll) {
    const match = /^#run-(\d+)$/.exec(location.hash);
    const template = match && byId(`template-${match[1]}`);
    if (!template) return;
    byId("details").replaceChildren(template.content.cloneNode(true));
    for (const link of table.querySelectorAll("a.chosen")) link.classList.remove("chosen");
    const link = table.querySelector(`a[href="${location.hash}"]`);
    if (link) link.classList.add("chosen");
    if (scroll) byId("details").scrollIntoView({ block: "start" });
  }

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  for (const id of ["find", "group", "column"]) byId(id).addEventListener("input", filter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => show(true));
  filter();
  if (location.hash) show(true);
  else {
    const first = document.querySelector('template[data-outcome="fail"], template[data-outcome="error"]') || document.querySelector("template");
    if (first) {
      history.replaceState(null, "", `#run-${first.id.replace("template-", "")}`);
      show(false);
    }
  }
})();
