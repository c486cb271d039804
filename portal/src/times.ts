// Times come in UTC and are shown in the reader's zone; without this script they stay as they are, and true.

const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [["day", 86_400], ["hour", 3_600], ["minute", 60]];

export function showTimes(root: ParentNode): void {
  for (const element of root.querySelectorAll("time")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    element.textContent = words(moment, element.hasAttribute("data-countdown"));
    element.title = full.format(moment);
  }
}

function words(moment: Date, always: boolean): string {
  const seconds = (moment.getTime() - Date.now()) / 1000;
  if (!always && Math.abs(seconds) >= 86_400) return short.format(moment);
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.round(seconds), "second");
}
