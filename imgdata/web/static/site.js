// The filter of a page that needs no server: hides the cells that don't fit. Without it all of them show.
const form = document.querySelector("form");
const cells = [...document.querySelectorAll(".grid li")];
form.hidden = false;
function apply() {
  const text = form.elements.text.value.toLowerCase();
  const label = form.elements.label.value;
  let shown = 0;
  for (const cell of cells) {
    const fits = (label === "" || cell.dataset.label === label) && cell.textContent.toLowerCase().includes(text);
    cell.hidden = !fits;
    shown += fits;
  }
  form.elements.count.value = `${shown.toLocaleString("en-US")} of ${cells.length.toLocaleString("en-US")}`;
}
form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
apply();
