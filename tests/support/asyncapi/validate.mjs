// Prints the errors and warnings of an AsyncAPI document, as JSON: node validate.mjs FILE
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const found = diagnostics.filter(({ severity }) => severity <= 1);
console.log(JSON.stringify(found.map(({ path, message }) => `${path.join("/")}: ${message}`)));
