"""A service over one model: OpenAI's audio interface, live sessions, a page for people, Home Assistant's Wyoming.

    python -m cohere_lite.serve --model FOLDER            (pip install 'cohere-lite[serve]')

The path of a request, and the file of each step:

    __main__.py        the options;  server.py: from the loading of the model to the last answer;  app.py: the routes
    edge.py            a connection: how slowly what may come, keys, origins, bodies counted as they stream in
    forms.py           a multipart body -> a temporary file and the fields beside it
    requests.py        a request that takes a place: the deadline, and what is answered where it fails
    transcriptions.py  OpenAI's route: fields -> options, segments -> answers (answers.py)
    rendering.py       the page's: segments -> subtitles
    realtime.py        OpenAI's live protocol;  live.py: a plain one;  sockets.py: what both share
    wyoming.py         Home Assistant's protocol, on a port of its own;  page.html: for people
    recordings.py      a file or a live recording -> pieces of audio, by the runtime's own readers and cutter
    scheduler.py       pieces of all recordings -> what is heard: whose turn it is, what is decoded side by side
    models.py          the only file that reaches into Recording and the model
    service.py         what all of them share: the door, the threads, the end;  metrics.py, log.py

Threads. The event loop's thread does all that waits for clients, and nothing that takes long. A few threads read files,
one each: reader, ffmpeg, resampling, cutting; a file waits when ROOM of its pieces wait, so that files of up to a
minute, of up to ten and longer ones have threads of their own (service.py). Two threads cut live sound as it comes, one
makes the page's subtitles. One thread has the model, and takes pieces in fair order: of the recordings that wait, the
one that has used the fewest seconds of audio is next; one that comes, or comes back, starts where the one being served
stands (start-time fair queueing). So a short clip or a live phrase passes hours of others' recordings, and nobody is
passed for ever. Pieces that wait are decoded side by side, up to the Transcriber's batch size, whatever their
languages; a batch ends with a piece that somebody waits for as it is spoken. Where the language is to be found, pieces
that nobody waits for are held back until it is sure, as by the command.

Cancelling. A client that is gone, a deadline and a stop all end in a recording's `cancel`: its pieces leave the queue,
its reader ends at the next block (which ends ffmpeg and removes the temporary file), and a piece that is in the model
is finished and dropped. Nothing else is shared between recordings. Clients ask again after 408, 409, 429 and 5xx; by
then the first request is cancelled, and errors that would only come again say "x-should-retry: false".

Limits. --max-queue recordings at once, uploads and live sessions included: more get 429 before their body is read, and
can hold up nobody. --max-upload bytes each, counted as they come: 413 before the rest is read. --timeout seconds from
the first byte to the answer; half of a request that stops coming ends earlier (edge.py), and so does an answer of which
nothing is read. So memory is bounded: for each file that is read ROOM + 3 pieces of at most 35 s, and 4 while its
language is not sure, 1 MiB of each upload (the rest is on the disk), of each live session 2 minutes and two messages of
at most 20 MiB, of Wyoming's connections without a recording 64 KiB each. Formats are told by the runtime, from bytes
alone, and nothing that a file names is opened: playlists are not audio.

Stop. SIGTERM closes the door and the listeners; files that are being recognised are answered, those that have not begun
get 503; live sessions get their last phrase. Ctrl-C, when it stops already, ends at once."""
