import { Component, type ReactNode } from "react";

import { ProblemNotice } from "./components/ProblemNotice";

interface State {
  error: Error | null;
}

/** A fault in the page itself is said, instead of leaving it blank. */
export class Failsafe extends Component<{ children: ReactNode }, State> {
  override state: State = { error: null };

  static getDerivedStateFromError(error: Error): State {
    return { error };
  }

  override render(): ReactNode {
    if (this.state.error === null) return this.props.children;
    return (
      <main>
        <ProblemNotice error={this.state.error} onRetry={() => window.location.reload()} />
      </main>
    );
  }
}
