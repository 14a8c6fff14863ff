%% @doc The client's side of the HTTP/1.1 upgrade to the Erlang distribution.
%%
%% The request is
%% ```
%% CONNECT /erl/<name> HTTP/1.1
%% Host: <host part of the node's name>
%% Connection: Upgrade
%% Upgrade: erlang-distribution
%% '''
%% and the answer that lets the distribution begin is `101' with
%% `Upgrade: erlang-distribution' and `Version: 5' or `6', the highest version of
%% the handshake that the node speaks. Every byte after the empty line is the
%% node's. Any other status is a refusal, with one line of plain text that says
%% why. (RFC 9110 sections 7.8 and 15; RFC 9112.)
%%
%% This module knows sockets and HTTP, but not nodes, settings or the log. What it
%% reads is bounded in bytes and in time, because the other side may be anything.
-module(oneport_upgrade).

-export([request/3, request_name/2, client/3, time_left/1, format_error/1]).

-export_type([method/0, deadline/0, reason/0]).

-type method() :: connect | get.
%% `get' is for intermediaries that take `CONNECT' for a request to themselves.
-type deadline() :: integer().
%% A point of `erlang:monotonic_time(millisecond)'.
-type reason() :: {refused, Status :: 100..999, Why :: unicode:chardata()}
                | {connect, inet:posix() | timeout}
                | {bad_version, binary()}
                | not_upgraded
                | not_http
                | header_too_long
                | timeout
                | closed
                | inet:posix().

%% Bytes of the answer's header, and of the body of a refusal that are read.
-define(MAX_HEADER, 8192).
-define(MAX_BODY, 1024).
-define(PROTOCOL, "erlang-distribution").

%% The versions of the handshake (ERL_DIST_VER_5, ERL_DIST_VER_6 of kernel's
%% dist.hrl). A door of 2016 may leave the header out, when all there was was 5; a
%% node takes 5 as "not known to be newer".
-define(OLDEST, 5).

-record(answer, {upgrade = false :: boolean(),
                 version :: undefined | binary(),
                 length :: undefined | non_neg_integer(),
                 chunked = false :: boolean()}).

%% @doc The request for the node `Name' of `Host', the two parts of a node's name.
-spec request(method(), Name :: string(), Host :: string()) -> iodata().
request(Method, Name, Host) ->
    [method(Method), " /erl/", escape(Name), " HTTP/1.1\r\n"
     "Host: ", host(Host), "\r\n"
     "Connection: Upgrade\r\n"
     "Upgrade: " ?PROTOCOL "\r\n"
     "\r\n"].

%% @doc The request for a node's full name, which is no upgrade but is answered in the
%% same form: its 200 is a `{refused, 200, FullName}' here.
-spec request_name(Name :: string(), Host :: string()) -> iodata().
request_name(Name, Host) ->
    ["GET /erl/", escape(Name), "/node HTTP/1.1\r\n"
     "Host: ", host(Host), "\r\n"
     "Connection: close\r\n"
     "\r\n"].

method(connect) -> "CONNECT";
method(get) -> "GET".

%% RFC 3986, section 2.1: all but the unreserved characters, in UTF-8.
%% (uri_string:quote/1 came with OTP 25.)
escape(Name) ->
    [case unreserved(Byte) of
         true -> Byte;
         false -> io_lib:format("%~2.16.0B", [Byte])
     end || <<Byte>> <= unicode:characters_to_binary(Name)].

unreserved(C) when C >= $a, C =< $z; C >= $A, C =< $Z; C >= $0, C =< $9 -> true;
unreserved(C) -> lists:member(C, "-._~").

%% RFC 3986, section 3.2.2: an IPv6 address stands in brackets, a name may hold
%% escaped bytes.
host(Host) ->
    case inet:parse_ipv6strict_address(Host) of
        {ok, _} -> ["[", Host, "]"];
        {error, _} -> escape(Host)
    end.

%% @doc Sends `Request' on a connected, passive socket, and reads the answer by
%% `Deadline'. With `{ok, Version}' the handshake in that version may begin, and
%% the socket has read nothing beyond the answer; its packet type and mode are the
%% caller's to set. After an error the socket is of no use; closing it is the
%% caller's too.
-spec client(gen_tcp:socket(), Request :: iodata(), deadline()) -> {ok, 5..6} | {error, reason()}.
client(Socket, Request, Deadline) ->
    %% The send cannot block: the request is smaller than the driver's queue.
    case set(Socket, [binary, {packet, http_bin}, {packet_size, ?MAX_HEADER}]) of
        ok ->
            case gen_tcp:send(Socket, Request) of
                ok -> status(Socket, Deadline, ?MAX_HEADER);
                {error, Reason} -> {error, Reason}
            end;
        Error ->
            Error
    end.

status(Socket, Deadline, Room) ->
    case receive_line(Socket, Deadline) of
        {ok, {http_response, {1, Minor}, Status, Phrase}} when Minor >= 1; Status =/= 101 ->
            case headers(Socket, Deadline, Room - byte_size(Phrase), #answer{}) of
                {ok, Answer, Left} -> answer(Socket, Deadline, Left, Status, Phrase, Answer);
                Error -> Error
            end;
        {ok, _} ->
            {error, not_http};
        Error ->
            Error
    end.

headers(_Socket, _Deadline, Room, _Answer) when Room =< 0 ->
    {error, header_too_long};
headers(Socket, Deadline, Room, Answer) ->
    case receive_line(Socket, Deadline) of
        {ok, {http_header, _, Field, _, Value}} ->
            Name = field_name(Field),
            %% ": " and the end of the line count too, else empty ones come free.
            Left = Room - byte_size(Name) - byte_size(Value) - 4,
            headers(Socket, Deadline, Left, header(Name, Value, Answer));
        {ok, http_eoh} ->
            {ok, Answer, Room};
        {ok, _} ->
            {error, not_http};
        Error ->
            Error
    end.

%% The driver gives the fields that it knows as atoms.
field_name(Field) when is_atom(Field) -> field_name(atom_to_binary(Field, latin1));
field_name(Field) -> list_to_binary(string:lowercase(binary_to_list(Field))).

header(<<"upgrade">>, Value, Answer) ->
    Offered = [string:trim(T) || T <- string:split(string:lowercase(binary_to_list(Value)), ",", all)],
    Answer#answer{upgrade = lists:member(?PROTOCOL, Offered)};
header(<<"version">>, Value, Answer) ->
    Answer#answer{version = Value};
header(<<"content-length">>, Value, Answer) ->
    try binary_to_integer(Value) of
        Length when Length >= 0 -> Answer#answer{length = Length};
        _ -> Answer
    catch
        error:badarg -> Answer
    end;
header(<<"transfer-encoding">>, _Value, Answer) ->
    Answer#answer{chunked = true};
header(_Name, _Value, Answer) ->
    Answer.

answer(_Socket, _Deadline, _Room, 101, _Phrase, #answer{upgrade = false}) ->
    {error, not_upgraded};
answer(Socket, _Deadline, _Room, 101, _Phrase, #answer{version = Value}) ->
    case version(Value) of
        {ok, Version} ->
            case set(Socket, [{packet, raw}, {packet_size, 0}]) of
                ok -> {ok, Version};
                Error -> Error
            end;
        Error ->
            Error
    end;
answer(Socket, Deadline, Room, Status, _Phrase, _Answer) when Status < 200 ->
    %% An interim answer, after which the true one comes (RFC 9110, section 15.2).
    case set(Socket, [{packet, http_bin}]) of
        ok -> status(Socket, Deadline, Room);
        Error -> Error
    end;
answer(Socket, Deadline, _Room, Status, Phrase, Answer) ->
    {error, {refused, Status, why(body(Socket, Deadline, Answer), Phrase)}}.

version(undefined) -> {ok, ?OLDEST};
version(<<"5">>) -> {ok, 5};
version(<<"6">>) -> {ok, 6};
version(Value) -> {error, {bad_version, Value}}.

%% The reason of a refusal. A body whose end is not told by its length comes from
%% something that is not a door, and the status is all there is to say.
body(_Socket, _Deadline, #answer{length = Length, chunked = Chunked})
  when Chunked; Length =:= undefined; Length =:= 0 ->
    <<>>;
body(Socket, Deadline, #answer{length = Length}) ->
    case set(Socket, [{packet, raw}, {packet_size, 0}]) of
        ok ->
            case gen_tcp:recv(Socket, min(Length, ?MAX_BODY), time_left(Deadline)) of
                {ok, Body} -> Body;
                {error, _} -> <<>>
            end;
        {error, _} ->
            <<>>
    end.

why(Body, Phrase) ->
    case first_line(Body) of
        [] -> first_line(Phrase);
        Line -> Line
    end.

%% One line that can stand in a log: no control characters, no broken UTF-8.
first_line(Text) ->
    Characters = case unicode:characters_to_list(Text) of
                     List when is_list(List) -> List;
                     {_, Good, _} -> Good
                 end,
    string:trim(lists:takewhile(fun printable/1, Characters)).

printable(C) -> C >= 32 andalso (C < 127 orelse C >= 160).

receive_line(Socket, Deadline) ->
    case gen_tcp:recv(Socket, 0, time_left(Deadline)) of
        {ok, Line} -> {ok, Line};
        {error, emsgsize} -> {error, header_too_long};
        {error, Reason} -> {error, Reason}
    end.

%% A peer that has gone makes setopts answer einval.
set(Socket, Options) ->
    case inet:setopts(Socket, Options) of
        ok -> ok;
        {error, einval} -> {error, closed};
        {error, Reason} -> {error, Reason}
    end.

%% @doc The milliseconds until `Deadline', 0 when it has passed.
-spec time_left(deadline()) -> non_neg_integer().
time_left(Deadline) ->
    max(0, Deadline - erlang:monotonic_time(millisecond)).

%% @doc The reason in words that follow "door x", without a full stop.
-spec format_error(reason()) -> unicode:chardata().
format_error({refused, Status, Why}) ->
    io_lib:format("answered ~b: ~ts", [Status, Why]);
format_error({connect, timeout}) ->
    "does not answer to TCP in time";
format_error({connect, Reason}) ->
    ["cannot be connected to: ", inet:format_error(Reason)];
format_error({bad_version, Value}) ->
    io_lib:format("answered with version ~ts of the distribution protocol, where 5 or 6 is expected",
                  [first_line(Value)]);
format_error(not_upgraded) ->
    "answered 101, but not for " ?PROTOCOL;
format_error(not_http) ->
    "does not speak HTTP/1.1: is the port another server's?";
format_error(header_too_long) ->
    io_lib:format("answered with a header of more than ~b bytes", [?MAX_HEADER]);
format_error(timeout) ->
    "accepted the connection, but did not answer in time";
format_error(closed) ->
    "closed the connection without an answer";
format_error(Reason) ->
    ["broke the connection: ", inet:format_error(Reason)].
