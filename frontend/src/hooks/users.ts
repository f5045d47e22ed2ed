import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";

import type { ClusterPath } from "../api/clusters";
import type { Accepted, ClusterUser, Rotation, UserOrder, UserPatch } from "../api/types";
import { addUser, editUser, listUsers, removeUser, revokeOldPassword, rotatePassword } from "../api/users";
import { newKey, useAccepted } from "./clusters";
import { keys } from "./keys";

export function useUsers(path: ClusterPath, isEnabled: boolean) {
  return useQuery({ queryKey: keys.users(path), queryFn: ({ signal }) => listUsers(path, signal), enabled: isEnabled });
}

export type UserChange =
  | { kind: "add"; order: UserOrder }
  | { kind: "edit"; user: ClusterUser; patch: UserPatch }
  | { kind: "remove"; user: ClusterUser }
  | { kind: "rotate"; user: ClusterUser; rotation: Rotation }
  | { kind: "revoke"; user: ClusterUser };

/** Any change of a cluster's users. A repeat of the same wish is sent with the same key, and made once. */
export function useChangeUsers(path: ClusterPath) {
  const cache = useQueryClient();
  const remember = useAccepted();
  const attempt = useRef({ wish: "", key: "" });
  return useMutation({
    mutationFn: (change: UserChange) => {
      const wish = JSON.stringify(change);
      if (attempt.current.wish !== wish) attempt.current = { wish, key: newKey() };
      return send(path, change, attempt.current.key);
    },
    onSuccess: async (accepted) => {
      attempt.current = { wish: "", key: "" };
      if (accepted) await remember(accepted);
    },
    // Also what was refused: it may be refused because something changed.
    onSettled: () => {
      void cache.invalidateQueries({ queryKey: keys.users(path) });
      void cache.invalidateQueries({ queryKey: keys.credentials(path) });
    },
  });
}

function send(path: ClusterPath, change: UserChange, key: string): Promise<Accepted | null> {
  switch (change.kind) {
    case "add":
      return addUser(path, change.order, key);
    case "edit":
      return editUser(path, change.user, change.patch);
    case "remove":
      return removeUser(path, change.user);
    case "rotate":
      return rotatePassword(path, change.user, change.rotation, key);
    case "revoke":
      return revokeOldPassword(path, change.user);
  }
}
