// The page of `forearm serve`: sends photos one by one, shows what came back. No library, nothing from elsewhere.

const AT_ONCE = 2; // photos under way at a time
const GAIN = 16; // as in the report's pictures: each level of change is shown as so many, around grey
const SMALL = 64; // longer edge up to which the models for small pictures are used

const $ = (id) => document.getElementById(id);
const state = { photos: [], waiting: [], running: 0, key: "", facts: null, number: 0 };

// ---- the service

function headers() {
  return state.key ? { Authorization: `Bearer ${state.key}` } : {};
}

async function complaint(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `the service answered ${answer.status}`;
  }
}

async function learn() {
  let answer;
  try {
    answer = await fetch("v1/models", { headers: headers() });
  } catch {
    return alarm("The service does not answer.");
  }
  if (answer.status === 401) return askForKey();
  if (!answer.ok) return alarm(await complaint(answer));
  state.facts = await answer.json();
  const { limits, notes } = state.facts;
  $("formats").textContent =
    `JPEG, PNG, WebP, BMP or TIFF of up to ${Math.floor(limits.bytes / 2 ** 20)} MB and ${Math.floor(limits.pixels / 1e6)} megapixels`;
  $("notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  $("about").hidden = false;
}

async function send(photo) {
  const query = photo.label ? `?label=${encodeURIComponent(photo.label)}` : "";
  for (;;) {
    const answer = await fetch(`v1/arm${query}`, { method: "POST", body: photo.file, headers: headers() });
    if (answer.status === 429 || answer.status === 503) {
      const seconds = Number(answer.headers.get("Retry-After")) || 2;
      show(photo, `the service is busy, again in ${seconds} seconds`);
      await new Promise((done) => setTimeout(done, seconds * 1000));
      if (!photo.article.isConnected) throw new Error("taken from the list");
      continue;
    }
    if (answer.status === 401) {
      askForKey();
      throw Object.assign(new Error("needs the API key"), { again: true });
    }
    if (!answer.ok) throw new Error(await complaint(answer));
    return { report: JSON.parse(answer.headers.get("Forearm-Report")), blob: await answer.blob() };
  }
}

function askForKey() {
  const opened = $("key").hidden;
  $("key").hidden = false;
  if (opened) $("key-text").focus();
  alarm("This service asks for an API key.");
}

// ---- the list

function add(files) {
  for (const file of files) {
    const article = $("photo").content.cloneNode(true).firstElementChild;
    const photo = { file, article, label: "", armed: null, before: "", after: "", number: (state.number += 1) };
    setUp(photo);
    $("photos").append(article);
    state.photos.push(photo);
    enqueue(photo);
  }
  $("bar").hidden = state.photos.length === 0;
}

function setUp(photo) {
  const find = (what) => photo.article.querySelector(what);
  const title = find(".name");
  title.id = `photo-${photo.number}`;
  title.textContent = photo.file.name;
  photo.article.setAttribute("aria-labelledby", title.id);
  find(".window").setAttribute("aria-label", `${photo.file.name}, scrolls`);
  find(".before img").alt = `${photo.file.name} before arming`;
  find(".after img").alt = `${photo.file.name} after arming`;
  find("canvas").setAttribute("aria-label", `What arming changed in ${photo.file.name}, ${GAIN} times as strong`);
  for (const choice of photo.article.querySelectorAll(".views input")) {
    choice.name = `view-${photo.number}`;
    choice.addEventListener("change", () => look(photo));
  }
  find(".real input").addEventListener("change", (event) => find(".window").classList.toggle("fit", !event.target.checked));
  for (const image of photo.article.querySelectorAll("img")) {
    image.addEventListener("load", () => realSize(image, image.naturalWidth));
    image.addEventListener("error", () => find(".unseen").hidden = false);
  }
  find(".relabel button").addEventListener("click", () => {
    photo.label = find(".relabel select").value;
    enqueue(photo);
  });
}

// One pixel of the picture on one of the screen.
function realSize(element, width) {
  element.style.width = `${width / window.devicePixelRatio}px`;
}

function enqueue(photo) {
  if (state.waiting.includes(photo)) return;
  const most = state.facts?.limits.bytes;
  if (most && photo.file.size > most) return show(photo, `larger than ${Math.floor(most / 2 ** 20)} MB`, "bad");
  photo.pending = true;
  show(photo, "waits");
  state.waiting.push(photo);
  pump();
}

function pump() {
  while (state.running < AT_ONCE && state.waiting.length) {
    const photo = state.waiting.shift();
    state.running += 1;
    arm(photo).finally(() => {
      state.running -= 1;
      pump();
    });
  }
  count();
}

async function arm(photo) {
  show(photo, "is being armed");
  try {
    const { report, blob } = await send(photo);
    if (!photo.article.isConnected) return;
    finish(photo, report, blob);
  } catch (error) {
    const offline = error instanceof TypeError ? "the service does not answer" : error.message;
    show(photo, offline, "bad");
    photo.again = Boolean(error.again);
    if (!error.again && photo.article.isConnected) news(`${photo.file.name}: ${offline}`);
  }
  photo.pending = false;
  count();
}

function finish(photo, report, blob) {
  const find = (what) => photo.article.querySelector(what);
  forget(photo);
  photo.armed = blob;
  photo.report = report;
  photo.before = URL.createObjectURL(photo.file);
  photo.after = URL.createObjectURL(blob);
  photo.drawn = false;
  find(".unseen").hidden = true;
  find(".before img").src = photo.before;
  find(".after img").src = photo.after;
  Object.assign(find(".save"), { href: photo.after, download: armedName(photo.file.name) });
  find(".save").setAttribute("aria-label", `Download ${armedName(photo.file.name)}`);
  const sure = `${Math.round(100 * report.confidence)} % sure`;
  const by = report.labelled_by === "given" ? "as you said" : `${sure}, by the ${report.labelled_by}`;
  const doubt = report.uncertain ? ". The labeller is unsure: look at the label" : "";
  show(photo, `armed as ${words(report.name)} (${by})${doubt}`, report.uncertain ? "warn" : "");
  quality(find(".quality"), report);
  offerLabels(photo, find(".relabel"));
  const first = find(".result").hidden;
  find(".result").hidden = false;
  const fits = 3.2 * (report.width / window.devicePixelRatio) < find(".window").clientWidth;
  if (first && fits) find("input[value=all]").checked = true;
  look(photo);
  news(`${photo.file.name}: armed as ${words(report.name)}${doubt}`);
}

function forget(photo) {
  for (const url of [photo.before, photo.after]) if (url) URL.revokeObjectURL(url);
  photo.before = photo.after = "";
  photo.armed = null;
}

function quality(list, report) {
  const lossy = report.linf_file !== null && report.linf_file !== report.linf;
  const rows = [
    ["Size", `${report.width} \u00d7 ${report.height}`],
    ["PSNR", report.psnr === null ? "unchanged" : `${report.psnr.toFixed(1)} dB`],
    ["SSIM", report.ssim.toFixed(3)],
    ["Largest change", `${report.linf}/255${lossy ? `, ${report.linf_file}/255 after ${report.format}` : ""}`],
    ["Backbone's margin", `${signed(report.margin_before)} \u2192 ${signed(report.margin_after)}`],
  ];
  list.replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("div");
      row.append(Object.assign(document.createElement("dt"), { textContent: name }));
      row.append(Object.assign(document.createElement("dd"), { textContent: value }));
      return row;
    }),
  );
}

function offerLabels(photo, place) {
  const { width, height, label } = photo.report;
  const kind = Math.max(width, height) <= SMALL ? "small" : "photo";
  const backbone = state.facts?.arming[kind]?.backbone;
  const classes = state.facts?.models.find((model) => model.name === backbone)?.classes ?? [];
  const select = place.querySelector("select");
  select.replaceChildren(...classes.map((name, index) => new Option(words(name), String(index), false, index === label)));
  select.setAttribute("aria-label", `Label of ${photo.file.name}`);
  place.hidden = classes.length === 0;
}

// ---- one photo's views

function look(photo) {
  const chosen = photo.article.querySelector(".views input:checked").value;
  for (const name of ["before", "after", "difference"]) {
    photo.article.querySelector(`.window .${name}`).hidden = chosen !== "all" && chosen !== name;
  }
  if (chosen === "difference" || chosen === "all") draw(photo);
}

// Mid-grey where nothing changed. Colour profiles are left out, so that the stored numbers are compared.
async function draw(photo) {
  if (photo.drawn) return;
  photo.drawn = true;
  const canvas = photo.article.querySelector("canvas");
  try {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const [before, after] = await Promise.all([photo.file, photo.armed].map((blob) => createImageBitmap(blob, options)));
    canvas.width = after.width;
    canvas.height = after.height;
    realSize(canvas, after.width);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const [a, b] = [before, after].map((bitmap) => {
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.drawImage(bitmap, 0, 0);
      bitmap.close();
      return context.getImageData(0, 0, canvas.width, canvas.height);
    });
    for (let i = 0; i < b.data.length; i += 1) b.data[i] = i % 4 === 3 ? 255 : 128 + GAIN * (b.data[i] - a.data[i]);
    context.putImageData(b, 0, 0);
  } catch {
    photo.article.querySelector(".unseen").hidden = false;
  }
}

// ---- words and numbers

const words = (name) => name.replaceAll("_", " ");
const signed = (value) => (value === null ? "?" : `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(1)}`);
const armedName = (name) => name.replace(/(\.[^.]*)?$/, (suffix) => `-armed${suffix}`);
const news = (text) => ($("news").textContent = text);
const alarm = (text) => ($("alarm").textContent = text);

function show(photo, text, kind = "") {
  const place = photo.article.querySelector(".state");
  place.textContent = text;
  place.className = `state ${kind}`;
  photo.article.setAttribute("aria-busy", String(/waits|being|busy/.test(text) && kind === ""));
}

function count() {
  const done = state.photos.filter((photo) => photo.armed).length;
  const open = state.photos.some((photo) => photo.pending);
  $("progress").max = Math.max(1, state.photos.length);
  $("progress").value = done;
  $("count").textContent = `${done} of ${state.photos.length}`;
  $("all").disabled = done === 0 || open;
}

// ---- all as one zip: stored, as pictures are packed already

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i += 1) crc = TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function numbers(...pairs) {
  const bytes = new DataView(new ArrayBuffer(pairs.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of pairs) {
    if (size === 2) bytes.setUint16(at, value, true);
    else bytes.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(bytes.buffer);
}

async function zip(files) {
  const pieces = [];
  const directory = [];
  let at = 0;
  for (const { name, blob } of files) {
    const data = new Uint8Array(await blob.arrayBuffer());
    const title = new TextEncoder().encode(name);
    // version 2.0, name in UTF-8, stored, 1 January 1980
    const shared = numbers([2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, crc32(data)], [4, data.length], [4, data.length], [2, title.length], [2, 0]);
    pieces.push(numbers([4, 0x04034b50]), shared, title, data);
    directory.push(numbers([4, 0x02014b50], [2, 20]), shared, numbers([2, 0], [2, 0], [2, 0], [4, 0], [4, at]), title);
    at += 4 + shared.length + title.length + data.length;
  }
  const size = directory.reduce((sum, piece) => sum + piece.length, 0);
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, at], [2, 0]);
  return new Blob([...pieces, ...directory, end], { type: "application/zip" });
}

async function downloadAll() {
  const used = new Set();
  const files = [];
  for (const photo of state.photos.filter((one) => one.armed)) {
    let name = armedName(photo.file.name);
    for (let n = 2; used.has(name.toLowerCase()); n += 1) name = armedName(photo.file.name).replace(/(\.[^.]*)?$/, (suffix) => `-${n}${suffix}`);
    used.add(name.toLowerCase());
    files.push({ name, blob: photo.armed });
  }
  const url = URL.createObjectURL(await zip(files));
  Object.assign(document.createElement("a"), { href: url, download: "armed.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  news(`${files.length} armed photos downloaded as armed.zip`);
}

// ---- what the user does

$("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
$("all").addEventListener("click", downloadAll);
$("clear").addEventListener("click", () => {
  state.waiting = [];
  for (const photo of state.photos) {
    forget(photo);
    photo.article.remove();
  }
  state.photos = [];
  $("bar").hidden = true;
  count();
  news("The list is empty");
  $("files").focus();
});
$("key").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.key = $("key-text").value;
  alarm("");
  await learn();
  if (state.facts === null) return;
  $("key").hidden = true;
  for (const photo of state.photos.filter((one) => one.again)) {
    photo.again = false;
    enqueue(photo);
  }
});
learn();
