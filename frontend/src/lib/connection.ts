// Whether the portal can be reached, told to the page by the API client.

type Listener = () => void;

let lostSince: number | null = null;
const listeners = new Set<Listener>();

/** When the portal stopped answering, in ms since the epoch; null while it answers. */
export function connectionLostSince(): number | null {
  return lostSince;
}

export function noteAnswer(): void {
  if (lostSince === null) return;
  lostSince = null;
  listeners.forEach((listener) => listener());
}

export function noteNoAnswer(): void {
  if (lostSince !== null) return;
  lostSince = Date.now();
  listeners.forEach((listener) => listener());
}

export function subscribeToConnection(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
