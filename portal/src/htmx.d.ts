declare module "htmx.org/dist/htmx.esm.js" {
  const htmx: { trigger(element: Element, name: string): void; process(element: Element): void };
  export default htmx;
}
