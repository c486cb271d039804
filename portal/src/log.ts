// A live log: new pieces are added as text, never as markup.

interface Piece { index: number; attempt: number; stream: string; offset: number; data: string }

export class LiveLog {
  private busy = false;
  private again = false;

  constructor(private readonly element: HTMLElement) {}

  async more(): Promise<void> {
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    try {
      const query = new URLSearchParams({ cursor: this.element.dataset.cursor ?? "" });
      const answer = await fetch(`${this.element.dataset.more}?${query}`, { headers: { "HX-Request": "true" } });
      if (!answer.ok) return;
      const found = await answer.json() as { pieces: Piece[]; cursor: string };
      this.element.dataset.cursor = found.cursor;
      for (const piece of found.pieces) this.add(piece);
    } catch { /* the next change asks again */ } finally {
      this.busy = false;
      if (this.again) { this.again = false; void this.more(); }
    }
  }

  private add(piece: Piece): void {
    if (String(piece.index) !== this.element.dataset.index || piece.stream !== this.element.dataset.stream) return;
    const atEnd = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 24;
    const bytes = Uint8Array.from(atob(piece.data), (letter) => letter.charCodeAt(0));
    this.element.append(new TextDecoder().decode(bytes));
    document.getElementById("log-empty")?.remove();
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }
}
