// Times of the portal beside this computer's clock, which may be wrong.

// The portal's clock minus ours, in ms, smoothed only by the one-second grain of the Date header.
let skew = 0;

/** Learn the portal's clock from an answer's Date header. */
export function noteServerTime(date: string | null): void {
  const time = date === null ? Number.NaN : Date.parse(date);
  if (Number.isNaN(time)) return;
  const seen = time - Date.now();
  // Below two seconds it is the header's grain and the way here, not a wrong clock.
  skew = Math.abs(seen) < 2000 ? 0 : seen;
}

/** The portal's present time in ms since the epoch. */
export function serverNow(): number {
  return Date.now() + skew;
}

/** Seconds from `start` to `end` (default: now), never negative. Both are ISO 8601 times. */
export function secondsBetween(start: string, end: string | null, now: number): number {
  return Math.max(0, ((end === null ? now : Date.parse(end)) - Date.parse(start)) / 1000);
}

/** "8 ms", "0.4 s", "12 s", "3 min 05 s", "2 h 10 min": units every language here shares. */
export function duration(seconds: number): string {
  if (seconds > 0 && seconds < 0.1) return `${Math.ceil(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}
