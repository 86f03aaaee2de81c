"use strict";

// Everything from feeds and logs is set as text, never as markup.

const EVERY = 2000;      // ms between two looks
const HISTORY = 1800;    // looks that are kept for the plots: an hour
const LINES = 500;       // lines of the tail that are kept
const $ = (selector, at = document) => at.querySelector(selector);

function make(name, text = "", kind = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit ? n.toFixed(1) : n} ${units[unit]}`;
}

function span(seconds) {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const count = (n) => n.toLocaleString("en");
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const rate = (n) => n === null ? "" : n < 10 ? n.toFixed(1) : count(Math.round(n));

// Requests, with the token where one is needed.

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { ...headers(), ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(10000),
  });
  if (answer.status === 401) throw new Refused();
  return [answer.status, await answer.json()];
}

const get = (path) => ask("GET", path);

class Refused extends Error {}

$("#token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", event.target.token.value);
  event.target.token.value = "";
  look();
});

// The state in a sentence, and what is wrong.

function state(sentence, kind) {
  const element = $("#state");
  const text = sentence.charAt(0).toUpperCase() + sentence.slice(1);
  if (element.textContent !== text) element.textContent = text;
  element.className = kind;
  document.title = `${kind === "bad" ? "✗ " : ""}Feeds and log streams`;
}

function showProblems(reasons) {
  $("#problems").hidden = reasons.length < 2;
  $("#problems ul").replaceChildren(...reasons.map((reason) => make("li", reason.text)));
}

// Feeds.

const history = new Map();

function remember(key, value) {
  const values = history.get(key) ?? [];
  values.push(value);
  if (values.length > HISTORY) values.shift();
  history.set(key, values);
  return values;
}

function plot(values, label) {
  const canvas = make("canvas");
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [130, 24];
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.title = label;
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  draw.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--mark");
  const most = Math.max(...values, 1);
  draw.beginPath();
  values.forEach((value, n) => {
    const x = values.length < 2 ? width : (n / (values.length - 1)) * width;
    const y = height - 2 - (value / most) * (height - 4);
    if (n === 0) draw.moveTo(x, y); else draw.lineTo(x, y);
  });
  draw.stroke();
  return canvas;
}

function bar(parts) {
  const element = make("div", "", "bar");
  for (const [size, kind, title] of parts) {
    const part = make("i", "", kind);
    part.style.flexGrow = size;
    part.title = title;
    element.append(part);
  }
  return element;
}

function row(cells) {
  const element = make("tr");
  for (const [content, kind] of cells) {
    const cell = make("td", "", kind ?? "");
    cell.append(content);
    element.append(cell);
  }
  return element;
}

function subscriberRow(feed, subscriber) {
  const lag = subscriber.lag_messages;
  const values = remember(`${feed.feed}\n${subscriber.subscriber}`, lag ?? 0);
  const notes = [];
  if (!subscriber.sound) notes.push("its checkpoint is damaged");
  if (subscriber.lost_messages) notes.push(`lost ${plural(subscriber.lost_messages, "message")}`);
  if (subscriber.missed_messages) notes.push(`missed ${plural(subscriber.missed_messages, "message")}`);
  if (subscriber.held_bytes) notes.push(`holds ${bytes(subscriber.held_bytes)}`);
  else if (subscriber.holds_oldest) notes.push("holds the oldest segment");
  const catchUp = lag && subscriber.catch_up_seconds !== null ? span(subscriber.catch_up_seconds) : "";
  const bad = !subscriber.sound || subscriber.lost_messages > 0;
  return row([
    [subscriber.subscriber],
    [lag === null ? "?" : count(lag), `n ${lag === 0 ? "good" : ""}`],
    [lag === null ? "" : bytes(subscriber.lag_bytes), "n"],
    [lag ? span(subscriber.lag_seconds) : "", "n"],
    [rate(subscriber.messages_per_second), "n"],
    [catchUp, "n"],
    [plot(values, `messages behind, ${plural(values.length, "measurement")}`)],
    [notes.join(", "), bad ? "wide bad" : "wide"],
  ]);
}

async function feedCard(feed) {
  const card = make("div", "", "card");
  card.append(make("h3", feed.feed));
  if (!feed.up) {
    card.append(make("p", feed.error, "bad"));
    return card;
  }
  const path = `api/v1/feeds/${encodeURIComponent(feed.feed)}`;
  const [[, { subscribers = [] }], [, { segments = [], left_out: more = 0 }]] =
    await Promise.all([get(`${path}/subscribers`), get(`${path}/segments?limit=200`)]);
  const facts = [plural(feed.messages, "message"), bytes(feed.bytes), `${rate(feed.messages_per_second) || 0} messages/s`];
  if (feed.pre_commit?.size) facts.push(`${bytes(feed.pre_commit.used)} in the pre-commit buffer`);
  if (feed.kept_files) facts.push(`${plural(feed.kept_files, "file")} of damage kept (${bytes(feed.kept_bytes)})`);
  card.append(make("p", facts.join(" · ")));
  const shown = segments.slice().reverse().map((segment) => [
    Math.max(segment.bytes, 1),
    `${segment.state} ${segment.being_written ? "writing" : segment.needed_by ? "" : "done"}`,
    `${segment.segment}: ${segment.state}, ${plural(segment.messages, "message")}, ${bytes(segment.bytes)}, ` +
      `needed by ${plural(segment.needed_by, "subscriber")}`,
  ]);
  if (shown.length) card.append(bar(shown));
  card.append(make("p", `${plural(feed.segments, "segment")}${more ? `, the newest ${segments.length} shown` : ""}; ` +
    "green is being written, grey is needed by nobody, red is damaged, pale was not verified", "faint"));
  const { max_bytes: max, at_limit: then } = feed.limits;
  const disk = [`${bytes(feed.disk_free)} free on the disk`];
  if (max !== null) disk.push(`${bytes(feed.bytes)} of ${bytes(max)}, then ${then === "fail" ? "writing fails" : "the oldest segments are dropped"}`);
  if (feed.full_in_seconds !== null) disk.push(`full in ${span(feed.full_in_seconds)} at this rate`);
  if (max !== null) card.append(bar([[feed.bytes, "", "used"], [Math.max(max - feed.bytes, 0), "free", "left"]]));
  card.append(make("p", disk.join(" · "), feed.full_in_seconds !== null && feed.full_in_seconds < 600 ? "warn" : ""));
  if (!subscribers.length) {
    card.append(make("p", "No subscribers: everything is kept.", "faint"));
    return card;
  }
  const table = make("table");
  const head = make("tr");
  for (const [text, kind] of [["subscriber"], ["behind", "n"], ["bytes", "n"], ["oldest", "n"], ["per s", "n"], ["catches up in", "n"], ["last hour"], [""]]) {
    head.append(make("th", text, kind));
  }
  table.append(head, ...subscribers.map((subscriber) => subscriberRow(feed, subscriber)));
  const scroll = make("div", "", "scroll");
  scroll.append(table);
  card.append(scroll);
  return card;
}

async function showFeeds() {
  const [, { feeds = [] }] = await get("api/v1/feeds");
  const shown = feeds.slice(0, 100);
  const cards = await Promise.all(shown.map(feedCard));
  if (feeds.length > shown.length) cards.push(make("p", `${feeds.length - shown.length} more are not shown`, "faint"));
  $("#feeds").hidden = cards.length === 0;
  $("#feeds .list").replaceChildren(...cards);
  return feeds;
}

// Streams.

function streamRow(stream) {
  const { lines, dropped, failed } = stream.stats;
  const sink = stream.type !== "";
  const leads = make("span");
  stream.outlets.forEach((outlet, n) => {
    const left = outlet.left_out ? `, ${count(outlet.left_out)} left out` : "";
    leads.append(`${n ? "; " : ""}${outlet.name}${outlet.filter ? ` if ${outlet.filter}` : ""}${left}`);
  });
  if (stream.why_immaterial) leads.append(make("span", ` (${stream.why_immaterial})`, "faint"));
  const lost = dropped + failed;
  const toggle = make("input");
  toggle.type = "checkbox";
  toggle.checked = stream.enabled;
  toggle.setAttribute("aria-label", `${stream.name} is enabled`);
  toggle.addEventListener("change", () => enable(stream, toggle));
  const cells = [
    [make("span", stream.graph ? `${stream.graph}: ${stream.name}` : stream.name, stream.why_immaterial ? "faint" : "")],
    [sink ? `${stream.type} ${stream.path}` : "", "wide"],
    [sink ? count(lines) : "", "n"],
    [sink ? rate(stream.lines_per_second) : "", "n"],
    [lost ? count(lost) : "", "n bad"],
    [stream.queue?.lines ? `${count(stream.queue.lines)} (${bytes(stream.queue.bytes)})` : "", "n"],
    [leads, "wide"],
  ];
  return row(mayChange ? [...cells, [toggle]] : cells);
}

// Whether the server lets this page change anything.
let mayChange = false;

async function enable(stream, toggle) {
  const path = `api/v1/streams/${encodeURIComponent(stream.name)}?graph=${encodeURIComponent(stream.graph)}`;
  let why = "";
  try {
    const [status, answer] = await ask("PATCH", path, { enabled: toggle.checked });
    if (status !== 200) why = answer.error;
  } catch (error) {
    why = error instanceof Refused ? "a token is needed" : "the server does not answer";
  }
  $("#refusal").textContent = why && `${stream.name} was not changed: ${why}`;
  if (why) toggle.checked = stream.enabled;
  look();
}

// The graph of the streams, from left to right: a stream stands right of all that lead to it.

const GRAPH_MOST = 80;   // more streams are only in the table
const NODE = { width: 150, height: 34, across: 90, down: 12 };

function shape(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

// The streams by their keys, each with its column, its row, and the lines per second that its sinks take.
function placed(streams) {
  const key = (graph, name) => `${graph}\n${name}`;
  const nodes = new Map(streams.map((stream) => [key(stream.graph, stream.name), { stream, column: 0, row: 0 }]));
  const outlets = (node) => node.stream.outlets.map((outlet) => [outlet, nodes.get(key(node.stream.graph, outlet.name))])
    .filter(([, to]) => to);
  const push = (node, column) => {
    node.column = Math.max(node.column, column);
    for (const [, to] of outlets(node)) if (to.column <= node.column) push(to, node.column + 1);
  };
  for (const node of nodes.values()) push(node, node.column);
  const flow = (node) => {
    if (node.rate === undefined) {
      const below = outlets(node).map(([, to]) => flow(to));
      node.rate = node.stream.type ? node.stream.lines_per_second ?? 0 : Math.max(0, ...below);
    }
    return node.rate;
  };
  const columns = [];
  for (const node of nodes.values()) {
    flow(node);
    (columns[node.column] ??= []).push(node);
  }
  // Each column in the order of what leads to it, so that fewer lines cross.
  columns.forEach((column, n) => {
    if (n > 0) {
      const wish = new Map(column.map((node) => [node, []]));
      for (const from of nodes.values()) for (const [, to] of outlets(from)) wish.get(to)?.push(from.row);
      const middle = (node) => wish.get(node).reduce((sum, at) => sum + at, 0) / Math.max(wish.get(node).length, 1);
      column.sort((a, b) => middle(a) - middle(b));
    }
    column.forEach((node, at) => { node.row = at; });
  });
  return { nodes, columns, outlets };
}

function drawGraph(streams) {
  const linked = new Set();
  for (const { graph, name, outlets } of streams) {
    if (outlets.length) linked.add(`${graph}\n${name}`);
    for (const outlet of outlets) linked.add(`${graph}\n${outlet.name}`);
  }
  const shown = streams.filter(({ graph, name }) => linked.has(`${graph}\n${name}`));
  if (!shown.length || shown.length > GRAPH_MOST) {
    const why = shown.length ? `${plural(shown.length, "stream")}: too many to draw` : "";
    $("#graph").replaceChildren(...(why ? [make("p", why, "faint")] : []));
    return;
  }
  const { nodes, columns, outlets } = placed(shown);
  const x = (node) => node.column * (NODE.width + NODE.across) + 2;
  const y = (node) => node.row * (NODE.height + NODE.down) + 2;
  const width = columns.length * (NODE.width + NODE.across) - NODE.across + 4;
  const height = Math.max(...columns.map((column) => column.length)) * (NODE.height + NODE.down) - NODE.down + 4;
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `graph of ${plural(shown.length, "stream")}` });
  const lost = (node) => node.stream.failing || node.stream.stats.dropped + node.stream.stats.failed > 0;
  for (const node of nodes.values()) {
    for (const [outlet, to] of outlets(node)) {
      const [x1, y1] = [x(node) + NODE.width, y(node) + NODE.height / 2];
      const [x2, y2] = [x(to), y(to) + NODE.height / 2];
      const bend = (x2 - x1) / 2;
      const nowhere = node.stream.why_immaterial || to.stream.why_immaterial;
      svg.append(shape("path", {
        d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`,
        class: nowhere ? "nowhere" : lost(to) ? "bad" : "",
        "stroke-width": nowhere ? 1 : 1 + 1.5 * Math.log10(1 + Math.min(node.rate || to.rate, to.rate)),
      }));
      const passed = outlet.lines === undefined ? ""
        : ` ${Math.round((100 * (outlet.lines - outlet.filtered)) / Math.max(outlet.lines, 1))} %`;
      if (!outlet.filter) continue;
      const label = shape("text", { class: "label", x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 4, "text-anchor": "middle" },
        short(outlet.filter, passed ? 10 : 15) + passed);
      label.append(shape("title", {}, `${outlet.filter}${passed && `: ${passed} pass`}`));
      svg.append(label);
    }
  }
  for (const node of nodes.values()) {
    const { stream } = node;
    const group = shape("g", { class: stream.why_immaterial ? "nowhere" : "" });
    group.append(shape("rect", { x: x(node), y: y(node), width: NODE.width, height: NODE.height, rx: 5,
      class: lost(node) ? "sink bad" : stream.type ? "sink" : "" }));
    group.append(shape("text", { x: x(node) + 8, y: y(node) + 15 }, short(stream.name, 20)));
    const under = stream.why_immaterial ?? [stream.type, stream.lines_per_second && `${rate(stream.lines_per_second)}/s`].filter(Boolean).join(" ");
    if (under) group.append(shape("text", { x: x(node) + 8, y: y(node) + 29, class: "label" }, short(under, 22)));
    group.append(shape("title", {}, [stream.name, stream.type && `${stream.type} ${stream.path}`, stream.why_immaterial]
      .filter(Boolean).join(": ")));
    svg.append(group);
  }
  const key = "The wider a line, the more lines per second go to the sink behind it; red loses lines, grey leads nowhere.";
  $("#graph").replaceChildren(svg, make("p", key, "faint"));
}

async function showStreams() {
  const [status, answer] = await get("api/v1/streams");
  const streams = status === 200 ? answer.streams : [];
  $("#streams").hidden = streams.length === 0;
  $("#streams .switch").hidden = !mayChange;
  const at = document.activeElement?.getAttribute("aria-label");
  $("#streams tbody").replaceChildren(...streams.map(streamRow));
  // The switch that has the keyboard keeps it.
  if (at) [...document.querySelectorAll("#streams input")].find((input) => input.getAttribute("aria-label") === at)?.focus();
  drawGraph(streams);
  return streams;
}

// The tail: by fetch, as an EventSource sends no token.

const tail = { source: "", last: "", stop: null, missed: 0, left: 0 };

function offer(feeds, streams) {
  // Tails have streams of their own meanwhile.
  streams = streams.filter((stream) => !/^live-tail-\d+$/.test(stream.name));
  const of = (stream) => `api/v1/streams/${encodeURIComponent(stream.name)}/tail?graph=${encodeURIComponent(stream.graph)}`;
  const [rings, others] = [true, false].map((yes) => streams.filter((stream) => (stream.type === "memory") === yes));
  const sources = [
    ...rings.map((ring) => [of(ring), ring.name]),
    ...feeds.filter((feed) => feed.up).map((feed) => [`api/v1/feeds/${encodeURIComponent(feed.feed)}/tail?`, feed.feed]),
  ];
  // Listening to a stream makes it work for that: only when somebody chooses it.
  if (mayChange && others.length) {
    if (!sources.length) sources.push(["", "choose one"]);
    sources.push(...others.map((stream) => [of(stream), `${stream.name} (from now on)`]));
  }
  $("#tail").hidden = sources.length === 0;
  const select = $("#tail select");
  const offered = [...select.options].map((option) => option.value).join("\n");
  if (offered === sources.map(([path]) => path).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...sources.map(([path, name]) => new Option(name, path)));
  if (sources.some(([path]) => path === chosen)) select.value = chosen;
  if (select.value !== tail.source) follow();
}

function matches(text) {
  const wanted = $("#tail [name=filter]").value;
  if (!wanted) return true;
  try {
    return new RegExp(wanted, "i").test(text);
  } catch {
    return text.includes(wanted);
  }
}

function note() {
  const parts = [];
  if (tail.missed) parts.push(`${plural(tail.missed, "line")} arrived while paused`);
  if (tail.left) parts.push(`${plural(tail.left, "line")} left out`);
  $("#tail .note").textContent = parts.join(", ");
}

function show(name, data) {
  const list = $("#tail ol");
  if (name === "left_out") tail.left += data.messages ?? data.lines ?? 0;
  const text = name ? data.text ?? data.error : data.line ?? data.body ?? (data.too_large ? `${data.size} bytes, too many to show` : `${data.size} bytes that are not text`);
  if (!name && !matches(text)) return;
  if ($("#tail [name=pause]").checked) {
    tail.missed += 1;
    note();
    return;
  }
  const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 30;
  const item = make("li", "", name ? "warn" : "");
  if (data.time) item.append(make("time", data.time.replace("T", " ").replace("Z", "")));
  item.append(text.replace(/\n$/, ""));
  list.append(item);
  while (list.children.length > LINES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
  note();
}

function take(block) {
  let [name, data] = ["", ""];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    if (line.startsWith("id: ")) tail.last = line.slice(4);
    if (line.startsWith("data: ")) data = line.slice(6);
  }
  if (data) show(name, JSON.parse(data));
}

async function follow() {
  tail.stop?.abort();
  const stop = tail.stop = new AbortController();
  const source = $("#tail select").value;
  if (source !== tail.source) {
    Object.assign(tail, { source, last: "", missed: 0, left: 0 });
    $("#tail ol").replaceChildren();
    note();
  }
  while (source && !stop.signal.aborted) {
    try {
      const again = tail.last ? { "Last-Event-ID": tail.last } : {};
      const answer = await fetch(`${source}&last=20`, { headers: { ...headers(), ...again }, signal: stop.signal });
      if (answer.ok) {
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let waiting = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          const blocks = (waiting + value).split("\n\n");
          waiting = blocks.pop();
          blocks.forEach(take);
        }
      }
    } catch {
      // The server is gone for now, or something else was chosen.
    }
    await new Promise((resume) => setTimeout(resume, EVERY));
  }
}

$("#tail select").addEventListener("change", follow);
$("#tail form").addEventListener("submit", (event) => event.preventDefault());
$("#tail [name=pause]").addEventListener("change", () => { tail.missed = 0; note(); });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("#tail [name=filter]").focus(); }
  if (event.key === "p") $("#tail [name=pause]").click();
  if (event.key === "g") $("#streams").scrollIntoView();
});

// All of it, again and again.

let looking = false;

async function look() {
  if (looking || document.hidden) return;
  looking = true;
  try {
    const [[, { reasons }], [, { features }]] = await Promise.all([get("health/ready"), get("capa.json")]);
    mayChange = "control" in features;
    const [feeds, streams] = await Promise.all([showFeeds(), showStreams()]);
    $("#token").hidden = true;
    if (reasons.length) state(reasons[0].text, "bad");
    else if (!feeds.length && !streams.length) state("There is nothing here yet.", "faint");
    else state("All is well.", "good");
    showProblems(reasons);
    offer(feeds, streams);
  } catch (error) {
    if (error instanceof Refused) {
      $("#token").hidden = false;
      state("A token is needed.", "warn");
    } else {
      state("The server does not answer; what is shown is old.", "bad");
    }
  } finally {
    looking = false;
  }
}

setInterval(look, EVERY);
document.addEventListener("visibilitychange", look);
look();
