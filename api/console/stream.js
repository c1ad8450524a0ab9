// The stream of all of one's jobs: one for all tabs of a browser, which has no more than six connections to a host. The
// tab that holds a lock has it and tells the others over a channel; once it is closed the next one goes on from what
// it has heard. Where locks are missing (a page without HTTPS), each tab has a stream of its own.

import { API, call } from "./http.js";

const REOPEN_MS = 2000;
const ASK_MS = 15_000; // how often a tab that is looked at asks whether the one with the stream is still there
const ANSWER_MS = 3000; // a browser may have put it to sleep, lock and all: then it is taken over

// Listen until the returned function is called. ``types`` are those of the events to hear; ``heard(data)`` is told of
// each, ``became(state)`` of "connecting", "live" and "reconnecting", ``opened(resumed)`` whenever something may have
// been missed: ``resumed`` says that it will be told still.
export function listen(account, { types, heard, became, opened }) {
  const name = `millrace.events.${account}`;
  const shared = Boolean(navigator.locks && window.BroadcastChannel);
  const others = shared ? new BroadcastChannel(name) : { postMessage() {}, close() {} };
  const asking = new AbortController();
  let state = "connecting";
  let last = "";
  let source = null; // only in the tab that has the stream
  let timer = 0;
  let claim = new AbortController();
  let letGo = () => {};
  let answered = false;
  let over = false;

  function become(now) {
    state = now;
    became(now);
  }

  // ---------------------------------------------------------------- the tab that has the stream

  function connect() {
    clearTimeout(timer);
    source?.close();
    const resumed = last !== "";
    const here = new EventSource(`${API}/events${resumed ? `?after=${encodeURIComponent(last)}` : ""}`);
    source = here;
    for (const type of types) {
      here.addEventListener(type, ({ data, lastEventId }) => {
        others.postMessage({ data, place: lastEventId });
        take(data, lastEventId);
      });
    }
    here.addEventListener("open", () => {
      become("live");
      others.postMessage({ state, last, resumed, opened: true });
      opened(resumed);
    });
    here.addEventListener("error", () => {
      become("reconnecting");
      others.postMessage({ state, last });
      // it comes back by itself after a broken connection, and gives up after an answer that is no stream
      if (here.readyState === EventSource.CLOSED) timer = setTimeout(reconnect, REOPEN_MS);
    });
  }

  async function reconnect() {
    const here = source;
    try {
      await call("GET", "/auth/me"); // says whether it was the session that ended
    } catch (error) {
      if (here === source && !over && error.status !== 401) timer = setTimeout(reconnect, REOPEN_MS);
      return;
    }
    if (here === source && !over) connect();
  }

  function take(data, place) {
    last = place || last;
    heard(data);
  }

  function disconnect() {
    clearTimeout(timer);
    source?.close();
    source = null;
    letGo();
  }

  // ---------------------------------------------------------------- which tab that is

  function lead() {
    if (over) return undefined;
    connect();
    return new Promise((resolve) => (letGo = resolve));
  }

  function stand(steal = false) {
    claim.abort();
    claim = new AbortController();
    const mine = claim;
    navigator.locks.request(name, steal ? { steal } : { signal: mine.signal }, lead).catch((error) => {
      if (mine !== claim || over) return;
      disconnect();
      if (error.name === "AbortError") stand(); // another tab has taken it over
      else connect(); // this browser gives no locks here
    });
  }

  function listenTo({ ask, data, place, state: theirs, last: position, resumed, opened: anew }) {
    if (ask) {
      if (source) others.postMessage({ state, last });
      return;
    }
    answered = true;
    if (source) return;
    if (data !== undefined) {
      take(data, place);
      return;
    }
    last = position || last;
    const before = state;
    become(theirs);
    // what came before this tab listened is not told again
    if (anew || (theirs === "live" && before !== "live")) opened(Boolean(anew && resumed));
  }

  function ask() {
    if (source || document.hidden) return;
    answered = false;
    others.postMessage({ ask: true });
    setTimeout(() => {
      if (!answered && !source && !over && !document.hidden) stand(true);
    }, ANSWER_MS);
  }

  became(state);
  if (shared) {
    others.onmessage = (message) => listenTo(message.data);
    stand();
    ask();
    const every = setInterval(ask, ASK_MS);
    document.addEventListener("visibilitychange", ask, { signal: asking.signal });
    asking.signal.addEventListener("abort", () => clearInterval(every));
  } else {
    connect();
  }

  return () => {
    over = true;
    asking.abort();
    disconnect();
    claim.abort();
    others.close();
  };
}
