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

// A form that is answered where it stands; Ctrl+Enter sends it from within a text.
async function put(target, url, options = {}) {
  target.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(url, { ...options, headers: { "X-In-Place": "1" } });
    target.innerHTML = await answer.text();
  } catch {
    target.innerHTML = '<div class="problem"><p><strong>The platform does not answer.</strong></p><p>Try again in a moment.</p></div>';
  }
  target.removeAttribute("aria-busy");
}

// What goes on by itself: asked for again until it has ended; only a change of its state is read out.
function follow(place) {
  const again = async () => {
    if (document.hidden) return setTimeout(again, 2000);
    const open = [...place.querySelectorAll("details[open]")].map((one) => one.id);
    await put(place, place.dataset.poll);
    open.forEach((id) => id && place.querySelector(`#${id}`)?.setAttribute("open", ""));
    const now = place.querySelector("[data-state]");
    const said = document.getElementById("state");
    if (now && said && said.textContent !== now.dataset.state) said.textContent = now.dataset.state;
    if (now && "ended" in now.dataset) {
      if ("reload" in place.dataset) location.reload();
      document.querySelectorAll("[data-until-end]").forEach((one) => one.remove());
      return;
    }
    setTimeout(again, 1500);
  };
  setTimeout(again, 1500);
}
document.querySelectorAll("[data-poll]").forEach(follow);

// What takes a while to find is asked for once the page is there.
document.querySelectorAll("[data-load]").forEach((place) => put(place, place.dataset.load));

// The request that a form makes, as it is written.
document.querySelectorAll("form[data-preview]").forEach((form) => {
  let waiting;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const body = new URLSearchParams(new FormData(form));
      body.set("action", "preview");
      put(document.getElementById(form.dataset.preview), form.getAttribute("action"), { method: "POST", body });
    }, 300);
  });
});

document.querySelectorAll("form[data-in-place]").forEach((form) => {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.setAttribute("aria-busy", "true");
    await put(document.getElementById(form.dataset.inPlace), form.getAttribute("action"), { method: "POST", body: new URLSearchParams(new FormData(form)) });
    button.removeAttribute("aria-busy");
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
});

// An upload that says how far it is, and keeps its file where it is refused.
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
function sends(form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = form.querySelector("input[type=file]");
    const button = form.querySelector("button[type=submit]");
    const place = form.querySelector("[data-progress]");
    const said = place.querySelector("[role=status]");
    const size = file.files.length ? file.files[0].size : 0;
    place.hidden = false;
    if (size > Number(form.dataset.limit)) {
      said.textContent = `This file has ${megabytes(size)}; ${megabytes(Number(form.dataset.limit))} are taken.`;
      return;
    }
    const request = new XMLHttpRequest();
    const end = (text) => {
      said.textContent = text;
      button.disabled = false;
    };
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      place.querySelector("progress").value = loaded / total;
      said.textContent = loaded < total ? `${megabytes(loaded)} of ${megabytes(total)}` : "Sent; the platform reads it.";
    });
    request.addEventListener("error", () => end("The platform does not answer. Try again in a moment."));
    request.addEventListener("load", () => {
      if (request.status < 400) return location.assign(request.responseURL);
      const page = new DOMParser().parseFromString(request.responseText, "text/html").querySelector("main");
      if (!page) return end("The platform refuses this.");
      const fresh = page.querySelector("form[data-upload]");
      document.querySelector("main").replaceChildren(...page.childNodes);
      if (!fresh) return;
      fresh.querySelector("input[type=file]").files = file.files;
      sends(fresh);
      document.querySelector("[role=alert]")?.focus();
    });
    button.disabled = true;
    request.open("POST", form.getAttribute("action"));
    request.send(new FormData(form));
  });
}
document.querySelectorAll("form[data-upload]").forEach(sends);
