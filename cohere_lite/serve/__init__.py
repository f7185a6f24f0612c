"""A service over one model: OpenAI's audio interface, live sessions, a page for people, Home Assistant's Wyoming.

    python -m cohere_lite.serve --model FOLDER            (pip install 'cohere-lite[serve]')

The path of a request, and the file of each step:

    edge.py            a connection: what may come how slowly, keys, CORS, the door (how many recordings at once)
    forms.py           a multipart body -> a temporary file, counted as it streams in, and the fields beside it
    transcriptions.py  OpenAI's routes: fields -> options, segments -> answers (answers.py)
    realtime.py        OpenAI's live protocol;  live.py: a plain one;  wyoming.py: Home Assistant's
    recordings.py      a file or a live recording -> pieces of audio, by the runtime's own readers and cutter
    scheduler.py       pieces of all recordings -> segments: whose turn it is, what is decoded side by side
    models.py          the only file that reaches into Recording and the model
    service.py         what all routes share: the door, the threads, the drain;  metrics.py, log.py, page.html

Threads. The event loop's thread does everything that waits for clients, and nothing that takes long. `FILES` threads
read files, a file each: a reader, ffmpeg, resampling, cutting; they wait where they are `ROOM` pieces ahead of the
model. `LIVE` threads cut live sound as it comes. One thread has the model, and takes the next piece in fair order: each
recording has used so many seconds of audio, and the one that has used the least is next, where a recording that comes
or comes back starts at what the one being served has used (start-time fair queueing). A short clip, or a live phrase,
therefore passes hours of other people's recordings, and cannot itself be passed for ever. Pieces that wait are decoded
side by side, as many as the Transcriber's batch size, whatever their languages; a batch ends with a piece that
somebody waits for as it is spoken.

Cancelling. A client that is gone, a deadline and a stop all end in a recording's `cancel`: its pieces leave the queue,
its reader ends at the next block (which ends ffmpeg and removes the temporary file), and a piece that is in the model
is finished and dropped. Nothing else is shared between recordings. Clients ask again after 408, 409, 429 and 5xx; by
then the first request is cancelled, and errors that would only come again say "x-should-retry: false".

Limits. --max-queue recordings at once, uploads and live sessions included: more get 429 before their body is read.
--max-upload bytes each, counted as they come: 413 before the rest is read. --timeout seconds from the first byte to the
answer; half of a request that stops coming ends earlier (edge.py). Memory is FILES * (ROOM + 2) pieces of at most 35 s,
1 MiB of each upload (the rest is on disk), and 2 minutes of each live session. Formats are told from bytes by the
runtime, which never opens what a file names: playlists are not audio.

Stop. SIGTERM closes the door and the listeners; files that are being recognised are answered, those that have not begun
get 503; live sessions get their last phrase. A second signal ends at once."""
