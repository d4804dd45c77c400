"use strict";
// Show what openapi.json says: each call, what it takes and gives, and the shapes of both.

function make(name, text, ...children) {
  const element = document.createElement(name);
  element.append(...(text ? [text] : []), ...children);
  return element;
}

const named = (schema) => schema?.$ref?.split("/").pop();

// What a value is; the name of a shape is a link to it.
function kind(schema) {
  if (named(schema)) {
    const link = make("a", named(schema));
    link.href = `#${named(schema)}`;
    return [link];
  }
  if (schema.anyOf) return schema.anyOf.flatMap((one, n) => [...(n ? [" or "] : []), ...kind(one)]);
  if (schema.type === "array") return ["list of ", ...kind(schema.items ?? {})];
  return [schema.type ?? "anything"];
}

function about(schema, ...more) {
  const limits = ["default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"]
    .filter((name) => name in schema).map((name) => `${name} ${JSON.stringify(schema[name])}`);
  return [...more, schema.description, limits.join(", ")].filter(Boolean).join(" · ");
}

function table(rows) {
  const lines = rows.map(([name, what, why]) =>
    make("tr", "", make("th", name), make("td", "", ...what), make("td", why)));
  return make("table", "", make("tbody", "", ...lines));
}

function section(title, ...parts) {
  const whole = make("section", "", make("h2", "", ...title), ...parts);
  whole.className = "call";
  return whole;
}

function call(path, method, what) {
  const parts = [make("p", what.description)];
  const rows = (what.parameters ?? []).map((p) => [p.name, kind(p.schema), about(p.schema, p.in)]);
  if (rows.length) parts.push(table(rows));
  const body = what.requestBody?.content["application/json"]?.schema;
  if (body) parts.push(make("p", "Takes ", ...kind(body)));
  const gives = Object.entries(what.responses)
    .filter(([, answer]) => answer.content?.["application/json"])
    .map(([status, answer]) => make("li", `${status}: `, ...kind(answer.content["application/json"].schema)));
  parts.push(make("p", "Gives"), make("ul", "", ...gives));
  return section([make("b", method.toUpperCase()), ` ${path}`], ...parts);
}

function shape(name, schema) {
  const required = schema.required ?? [];
  const rows = Object.entries(schema.properties ?? {})
    .map(([field, of]) => [field, kind(of), about(of, required.includes(field) ? "required" : "")]);
  const whole = section([name], make("p", schema.description ?? ""), table(rows));
  whole.id = name;
  return whole;
}

fetch("openapi.json").then((response) => response.json()).then((api) => {
  const place = document.getElementById("calls");
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, what] of Object.entries(methods)) place.append(call(path, method, what));
  for (const [name, schema] of Object.entries(api.components.schemas)) place.append(shape(name, schema));
});
