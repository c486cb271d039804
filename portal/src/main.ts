// What pages do beyond links and forms. Everything that only reads works without it.

import htmx from "htmx.org/dist/htmx.esm.js";
import { follow } from "./live";
import { LiveLog } from "./log";
import { showTimes } from "./times";

const base = document.body.dataset.base ?? "";
const logs = new WeakMap<Element, LiveLog>();
const due = new Set<HTMLElement>();

document.documentElement.classList.add("js");
showTimes(document);
setInterval(() => { if (!document.hidden) showTimes(document); }, 20_000);
document.addEventListener("htmx:afterSwap", () => showTimes(document));  // before anybody sees it
document.addEventListener("htmx:beforeSwap", (event) => {  // refusals are shown where they belong, not dropped
  const detail = (event as CustomEvent<{ xhr: XMLHttpRequest; shouldSwap: boolean }>).detail;
  if (detail.xhr.status >= 400 && detail.xhr.getResponseHeader("HX-Retarget")) detail.shouldSwap = true;
});

for (const bar of document.querySelectorAll<HTMLElement>(".side, .tabs")) {  // where it is wider than the screen
  const at = bar.querySelector("[aria-current]")?.getBoundingClientRect();
  if (at) bar.scrollLeft += at.left - bar.getBoundingClientRect().left - (bar.clientWidth - at.width) / 2;
}

function isInHands(element: HTMLElement): boolean {
  return element.contains(document.activeElement) || element.querySelector("details[open]") !== null || isTicked(element);
}

document.addEventListener("htmx:beforeSwap", (event) => {  // nor when somebody took it while the answer was on its way
  const { target, shouldSwap } = (event as CustomEvent<{ target: HTMLElement; shouldSwap: boolean }>).detail;
  if (!shouldSwap || target.dataset.live === undefined || !isInHands(target)) return;
  (event as CustomEvent<{ shouldSwap: boolean }>).detail.shouldSwap = false;
  due.add(target);
});

function refresh(element: HTMLElement): void {
  if (element.dataset.more !== undefined) {
    if (!logs.has(element)) logs.set(element, new LiveLog(element));
    void logs.get(element)?.more();
  } else if (isInHands(element)) {
    due.add(element);  // not under the hands of whoever is in it
  } else {
    due.delete(element);
    htmx.trigger(element, "live");
  }
}

function isTicked(element: HTMLElement): boolean {  // what is folded away is in nobody's hands
  return [...element.querySelectorAll("input:checked")].some((one) => one.closest("details:not([open])") === null);
}

function live(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>("[data-live]")];
}

function concerns(element: HTMLElement, subjects: string[]): boolean {
  const wanted = (element.dataset.live ?? "").split(" ");
  return subjects.some((subject) => wanted.some((one) => one.endsWith("/") ? subject.startsWith(one) : subject === one));
}

function isShared(subject: string): boolean {
  return /^(site|vo|grant|image)\//.test(subject);
}

if (live().length > 0) {
  follow(
    `${base}/live`,
    (subjects) => {
      const mine = subjects.filter((subject) => !isShared(subject));
      const others = subjects.filter(isShared);
      live().filter((element) => concerns(element, mine)).forEach(refresh);
      if (others.length > 0) {  // many hear it at once: they do not all ask at once
        setTimeout(() => live().filter((element) => concerns(element, others)).forEach(refresh), Math.random() * 1_500);
      }
    },
    () => live().forEach(refresh),
  );
  setInterval(() => { if (!document.hidden) [...due].forEach(refresh); }, 3_000);
}

setInterval(() => {  // what is measured all the time changes without an event
  if (!document.hidden) document.querySelectorAll<HTMLElement>("[data-every]").forEach(refresh);
}, 30_000);

document.addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  const typing = target.matches("input, textarea, select, [contenteditable]");
  const search = document.getElementById("q") as HTMLInputElement | null;
  if (search && ((event.key === "/" && !typing) || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)))) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape") {
    document.querySelectorAll<HTMLDetailsElement>("details.menu[open]").forEach((menu) => {
      menu.open = false;
      menu.querySelector("summary")?.focus();
    });
    if (target === search) search?.blur();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && target.closest(".search")) {
    const links = [...document.querySelectorAll<HTMLElement>("#hits a")];
    const at = links.indexOf(target) + (event.key === "ArrowDown" ? 1 : -1);
    (at < 0 ? search : links[Math.min(at, links.length - 1)])?.focus();
    event.preventDefault();
  }
});

document.addEventListener("click", (event) => {
  const button = (event.target as HTMLElement).closest<HTMLButtonElement>("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy ?? "");
  const text = source?.textContent ?? "";
  const before = button.textContent;
  if (navigator.clipboard === undefined && source) {  // without TLS there is none: it is marked, and Ctrl-C takes it
    getSelection()?.selectAllChildren(source);
    return;
  }
  void navigator.clipboard.writeText(text).then(() => {
    button.textContent = button.dataset.copied ?? before;
    setTimeout(() => { button.textContent = before; }, 1_500);
  });
});

document.addEventListener("change", (event) => {
  const all = (event.target as HTMLElement).closest<HTMLInputElement>("[data-ticks]");
  for (const one of all?.closest("table")?.querySelectorAll<HTMLInputElement>("tbody input[type=checkbox]") ?? []) {
    if (one.name.startsWith(all?.dataset.ticks ?? "")) one.checked = all?.checked ?? false;
  }
});

const code = location.hash.slice(1);
const door = document.getElementById("sign-in") as HTMLFormElement | null;
if (door && code) {
  history.replaceState(null, "", location.pathname);  // the code does not stay in the history
  (door.elements.namedItem("code") as HTMLInputElement).value = code;
  door.submit();
}
