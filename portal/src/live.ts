// One stream for all tabs of a browser. A visible tab that holds the lock reads it and tells the others; a hidden tab
// gives the lock back and asks for nothing. Where there are no locks (plain HTTP to another computer), each visible
// tab has a stream of its own.

export type Listener = (subjects: string[]) => void;

export function follow(url: string, changed: Listener, catchUp: () => void): void {
  const channel = new BroadcastChannel("hansa-live");
  channel.onmessage = (event: MessageEvent<string[]>) => {
    if (!document.hidden) changed(event.data);
  };
  let stop: (() => void) | null = null;

  function start(): void {
    if (stop !== null) return;
    const giveUp = new AbortController();
    stop = () => giveUp.abort();
    const read = () => readUntil(url, giveUp.signal, (subjects) => {
      channel.postMessage(subjects);
      changed(subjects);
    }, catchUp);
    if (navigator.locks === undefined) void read();
    else void navigator.locks.request("hansa-live", { signal: giveUp.signal }, read).catch(() => undefined);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      stop?.();
      stop = null;
    } else {
      catchUp();
      start();
    }
  });
  window.addEventListener("pagehide", () => { stop?.(); stop = null; });
  window.addEventListener("pageshow", (event) => { if (event.persisted) { catchUp(); start(); } });
  if (!document.hidden) start();
  if (navigator.locks !== undefined) {  // a tab that only listens has missed what came before it did
    setTimeout(() => { if (!document.hidden) catchUp(); }, 400);
  }
}

function readUntil(url: string, signal: AbortSignal, changed: Listener, catchUp: () => void): Promise<void> {
  return new Promise((resolve) => {
    let source: EventSource | null = null;
    let wait = 1_000;
      const open = (): void => {
      if (signal.aborted) return;
      source = new EventSource(url);
      source.addEventListener("open", () => { wait = 1_000; catchUp(); });  // what changed since the page was made
      source.addEventListener("changed", (event) => changed(JSON.parse((event as MessageEvent<string>).data) as string[]));
      source.addEventListener("error", () => {  // the browser repeats by itself unless the server said no
        if (source?.readyState !== EventSource.CLOSED) return;
        setTimeout(open, wait);
        wait = Math.min(wait * 2, 30_000);
      });
    };
    signal.addEventListener("abort", () => { source?.close(); resolve(); });
    if (signal.aborted) resolve();
    else open();
  });
}
