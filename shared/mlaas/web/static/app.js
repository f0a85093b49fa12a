// What the pages gain by a script; all of them work without.

const typing = (target) => target.closest("input, textarea, select, [contenteditable]");

// Keys: / to the search field, g and a letter to a page, ? to the help.
const PAGES = { h: "", m: "models", d: "datasets", v: "indexes", t: "train", k: "tasks", e: "events" };
let going = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "/") {
    const field = document.querySelector("[data-search]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  } else if (event.key === "?") {
    location.assign("/web/help");
  } else if (going && event.key in PAGES) {
    location.assign(`/web/${PAGES[event.key]}`);
  }
  going = event.key === "g";
});

// A list that is narrowed by a choice shows it at once.
document.querySelectorAll("form.find select").forEach((one) => one.addEventListener("change", () => one.form.requestSubmit()));
