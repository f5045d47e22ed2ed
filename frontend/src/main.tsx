import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";

import { App } from "./App";
import { Failsafe } from "./Failsafe";
import { startLanguages } from "./i18n";
import { createQueryClient } from "./query";
import "./styles/main.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no element with the id root.");
await startLanguages();
createRoot(root).render(
  <StrictMode>
    <Failsafe>
      <QueryClientProvider client={createQueryClient()}>
        {/* Engine and plan live in the address: in a transition their radio buttons would jump back for a moment. */}
        <BrowserRouter useTransitions={false}>
          <App />
        </BrowserRouter>
      </QueryClientProvider>
    </Failsafe>
  </StrictMode>,
);
