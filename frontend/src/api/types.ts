// Names for the generated types. Nothing about the API is written by hand.
import type { components, operations } from "./schema";

type Schemas = components["schemas"];

export type Accepted = Schemas["Accepted"];
export type Alert = Schemas["Alert"];
export type Alerts = Schemas["AlertPage"];
export type Cause = Schemas["Cause"];
export type Certificate = Schemas["Certificate"];
export type Cluster = Schemas["Cluster"];
export type ClusterEvent = Schemas["Event"];
export type ClusterOrder = Schemas["ClusterOrder"];
export type ClusterCopy = Schemas["Copy"];
export type CopiedOrder = Schemas["CopiedOrder"];
export type Credential = Schemas["Credential"];
export type Effect = Schemas["Effect"];
export type Endpoint = Schemas["Endpoint"];
export type Engine = Schemas["Engine"];
export type Field = Schemas["Field"];
export type FieldProblem = Schemas["FieldProblem"];
export type Forecast = Schemas["Forecast"];
export type ForecastDraft = Schemas["ForecastDraft"];
export type ForecastStanding = Schemas["ForecastStanding"];
export type Member = Schemas["Member"];
export type Monitoring = Schemas["Monitoring"];
export type Operation = Schemas["Operation"];
export type Phase = Schemas["Phase"];
export type Plan = Schemas["Plan"];
export type Problem = Schemas["Problem"];
export type Rehearsal = Schemas["Rehearsal"];
export type Reservation = Schemas["Reservation"];
export type Reservations = Schemas["ReservationPage"];
export type Revealed = Schemas["Revealed"];
export type Session = Schemas["Session"];
export type SignIn = Schemas["SignIn"];
export type Snippet = Schemas["Snippet"];
export type Step = Schemas["Step"];
export type Target = Schemas["Target"];
export type Tenant = Schemas["Tenant"];
export type ClusterUser = Schemas["ClusterUser"];
export type UserOrder = Pick<Schemas["UserOrder"], "name" | "key_prefixes" | "channel_prefixes" | "commands">;
export type UserPatch = Partial<Schemas["UserPatch"]>;
export type UserRules = Schemas["UserRules"];
export type Rotation = Schemas["RotateOrder"];

export type ClustersQuery = NonNullable<operations["listClusters"]["parameters"]["query"]>;
export type VolumesChoice = NonNullable<NonNullable<operations["deleteCluster"]["parameters"]["query"]>["volumes"]>;
