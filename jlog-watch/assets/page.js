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

async function get(path) {
  const answer = await fetch(path, { headers: headers(), signal: AbortSignal.timeout(10000) });
  if (answer.status === 401) throw new Refused();
  return [answer.status, await answer.json()];
}

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
    [plot(values, `messages behind, ${plural(values.length, "look")}`)],
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
    segment.being_written ? "writing" : segment.needed_by ? "" : "done",
    `${segment.segment}: ${plural(segment.messages, "message")}, ${bytes(segment.bytes)}, ` +
      `needed by ${plural(segment.needed_by, "subscriber")}`,
  ]);
  if (shown.length) card.append(bar(shown));
  card.append(make("p", `${plural(feed.segments, "segment")}${more ? `, the newest ${segments.length} shown` : ""}; ` +
    "green is being written, grey is needed by nobody", "faint"));
  const { max_bytes: max, at_limit: then } = feed.limits;
  const disk = [`${bytes(feed.disk_free)} free on the disk`];
  if (max !== null) disk.push(`${bytes(feed.bytes)} of ${bytes(max)}, then ${then === "fail" ? "writing fails" : "the oldest segments are dropped"}`);
  if (feed.full_in_seconds !== null) disk.push(`full in ${span(feed.full_in_seconds)} if it goes on like this`);
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
  return row([
    [make("span", stream.graph ? `${stream.graph}: ${stream.name}` : stream.name, stream.why_immaterial ? "faint" : "")],
    [sink ? `${stream.type} ${stream.path}` : "", "wide"],
    [sink ? count(lines) : "", "n"],
    [sink ? rate(stream.lines_per_second) : "", "n"],
    [lost ? count(lost) : "", "n bad"],
    [stream.queue?.lines ? `${count(stream.queue.lines)} (${bytes(stream.queue.bytes)})` : "", "n"],
    [leads, "wide"],
  ]);
}

async function showStreams() {
  const [status, answer] = await get("api/v1/streams");
  const streams = status === 200 ? answer.streams : [];
  $("#streams").hidden = streams.length === 0;
  $("#streams tbody").replaceChildren(...streams.map(streamRow));
  return streams;
}

// The tail: by fetch, as an EventSource sends no token.

const tail = { source: "", last: "", stop: null, missed: 0, left: 0 };

function offer(feeds, streams) {
  const rings = streams.filter((stream) => stream.type === "memory");
  const sources = [
    ...rings.map((ring) => [`api/v1/streams/${encodeURIComponent(ring.name)}/tail?graph=${encodeURIComponent(ring.graph)}`, ring.name]),
    ...feeds.filter((feed) => feed.up).map((feed) => [`api/v1/feeds/${encodeURIComponent(feed.feed)}/tail?`, feed.feed]),
  ];
  $("#tail").hidden = sources.length === 0;
  const select = $("#tail select");
  const offered = [...select.options].map((option) => option.value).join("\n");
  if (offered === sources.map(([path]) => path).join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...sources.map(([path, name]) => new Option(name, path)));
  if (sources.some(([path]) => path === chosen)) select.value = chosen;
  follow();
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
  if (tail.missed) parts.push(`${plural(tail.missed, "line")} came while paused`);
  if (tail.left) parts.push(`${plural(tail.left, "line")} left out`);
  $("#tail .note").textContent = parts.join(", ");
}

function show(name, data) {
  const list = $("#tail ol");
  if (name === "left_out") tail.left += data.messages ?? data.lines ?? 0;
  const text = name ? data.text ?? data.error : data.line ?? data.body ?? `${data.size} bytes that are no text`;
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
});

// All of it, again and again.

let looking = false;

async function look() {
  if (looking || document.hidden) return;
  looking = true;
  try {
    const [, { reasons }] = await get("health/ready");
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
