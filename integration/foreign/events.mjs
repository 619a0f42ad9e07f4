// Someone else's consumer: knows CloudEvents, Kafka and the contracts in proto/, and nothing else of the shop.
//
// node events.mjs SERVERS TOPIC GROUP TYPE: prints each event of the topic as a line of JSON, oldest first, and ends after
// the first one of TYPE. Whoever runs it limits its time.

import { createRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import kafkajs from "kafkajs";

import { file_stoa_ordering_v1_events } from "./gen/stoa/ordering/v1/events_pb.js";

const [servers, topic, groupId, last] = process.argv.slice(2);
if (!last) {
  console.error("node events.mjs SERVERS TOPIC GROUP TYPE");
  process.exit(2);
}

const registry = createRegistry(file_stoa_ordering_v1_events);
const kafka = new kafkajs.Kafka({
  clientId: "foreign",
  brokers: servers.split(","),
  logLevel: kafkajs.logLevel.ERROR,
});
const consumer = kafka.consumer({ groupId });

/** The attributes of a CloudEvent in Kafka's binary mode, those it must have checked. */
function attributes(headers) {
  const found = {};
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (name.startsWith("ce_") && value !== undefined) found[name.slice(3)] = value.toString();
  }
  for (const name of ["specversion", "id", "source", "type"]) {
    if (!found[name]) throw new Error(`an event without ${name}`);
  }
  if (found.specversion !== "1.0") throw new Error(`CloudEvents ${found.specversion}`);
  if (headers["content-type"]?.toString() !== "application/protobuf") throw new Error("data is not protobuf");
  return found;
}

await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
const done = new Promise((resolve, reject) => {
  consumer
    .run({
      eachMessage: async ({ message }) => {
        try {
          const event = attributes(message.headers);
          const schema = registry.getMessage(event.type);
          if (!schema) throw new Error(`${event.type} is not in the contracts`);
          const data = toJson(schema, fromBinary(schema, message.value), { registry });
          console.log(JSON.stringify({ ...event, key: message.key.toString(), data }));
          if (event.type === last) resolve();
        } catch (error) {
          reject(error);
        }
      },
    })
    .catch(reject);
});
await done;
await consumer.disconnect();
