/** Words of the portal itself, which are English whatever the page's language is. */
export function Said({ children }: { children: string }) {
  return <span lang="en">{children}</span>;
}
