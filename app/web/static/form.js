// The form of a new job: folders of the server are chosen in a dialog, which shows the page that lists them, and folders of the
// person's own machine are sent as an archive. Without it the links lead to that page, and paths and ids are typed.
"use strict";

const BLOCK = 512;
const text = new TextEncoder();

// One header of a tar file (POSIX ustar). Names that do not fit are refused: who has such files uses the command line.
function header(path, size) {
  const block = new Uint8Array(BLOCK);
  const put = (at, bytes) => block.set(bytes, at);
  const octal = (value, digits) => text.encode(value.toString(8).padStart(digits, "0"));
  let name = text.encode(path);
  if (name.length > 100) {
    const cut = [...path.matchAll(/\//g)].map((found) => found.index)
      .find((at) => text.encode(path.slice(0, at)).length <= 155 && text.encode(path.slice(at + 1)).length <= 100);
    if (cut === undefined) throw new Error(`the name of ${path} is too long to be sent from here`);
    put(345, text.encode(path.slice(0, cut)));
    name = text.encode(path.slice(cut + 1));
  }
  if (size >= 8 ** 11) throw new Error(`${path} is too large to be sent from here; use coppice prune --upload`);
  put(0, name);
  put(100, text.encode("0000644\0"));
  put(108, text.encode("0000000\0"));
  put(116, text.encode("0000000\0"));
  put(124, octal(size, 11));
  put(136, octal(0, 11));
  put(148, text.encode("        "));
  put(156, text.encode("0"));
  put(257, text.encode("ustar\x0000"));
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, text.encode(`${sum.toString(8).padStart(6, "0")}\0 `));
  return block;
}

// The files themselves are parts of the archive, and are read only as it is sent.
function archive(files) {
  const parts = [];
  for (const file of files) {
    const path = file.webkitRelativePath.split("/").slice(1).join("/") || file.name;
    parts.push(header(path, file.size), file, new Uint8Array((BLOCK - (file.size % BLOCK)) % BLOCK));
  }
  return new Blob([...parts, new Uint8Array(2 * BLOCK)]);
}

function send(kind, body, tell) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/${kind}s`);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/x-tar");
    request.upload.onprogress = (event) => tell(event.loaded / event.total);
    request.onerror = () => reject(new Error("the server did not take it; try again"));
    request.onload = () => {
      if (request.status < 300) resolve(request.response.id);
      else reject(new Error(request.response?.detail ?? `the server answered ${request.status}`));
    };
    request.send(body);
  });
}

for (const control of document.querySelectorAll("[data-upload]")) {
  const field = document.getElementById(`f-${control.dataset.into}`);
  const said = document.getElementById(`u-${control.dataset.into}`);
  control.closest("[hidden]").hidden = false;
  control.addEventListener("change", async () => {
    if (!control.files.length) return;
    const busy = document.getElementById("form");
    busy.setAttribute("aria-busy", "true");
    try {
      field.value = await send(control.dataset.upload, archive([...control.files]), (share) => {
        said.textContent = share < 1 ? `Sending, ${Math.round(100 * share)} %` : "Sent; the server looks at it…";
      });
      said.textContent = "Uploaded.";
    } catch (error) {
      said.textContent = `Not uploaded: ${error.message}.`;
    }
    busy.removeAttribute("aria-busy");
    control.value = "";
  });
}

const dialog = document.getElementById("browser");

async function show(address) {
  const place = dialog.querySelector("[data-listing]");
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("browse");
    place.replaceChildren(found ? document.adoptNode(found) : (page.querySelector(".card p:not(.figure)")?.textContent ?? "The server does not answer."));
  } catch {
    place.textContent = "The server does not answer.";
  }
  dialog.scrollTop = 0;
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const opener = event.target.closest("a[data-open]");
  const inner = event.target.closest("dialog a[data-browse]");
  const chosen = event.target.closest("dialog a[data-choose]");
  if (!opener && !inner && !chosen) return;
  event.preventDefault();
  if (opener) {
    dialog.dataset.into = opener.dataset.open;
    dialog.showModal();
    show(opener.href);
  } else if (inner) {
    show(inner.href);
  } else {
    const field = document.getElementById(`f-${dialog.dataset.into}`);
    field.value = chosen.dataset.choose;
    dialog.close();
    field.focus();
  }
});
