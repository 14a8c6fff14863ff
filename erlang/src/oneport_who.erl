%% @doc The client's side of the question for a node's full name.
%%
%% The request is `GET /erl/<name>/node', the answer one line of plain text, the name
%% that the node itself goes by. (docs/PROTOCOL.md, "Aliases".)
-module(oneport_who).

-export([request/2, client/3, format_error/1]).

-export_type([reason/0]).

-type reason() :: not_a_name | oneport_upgrade:reason().

%% Characters of an atom, which a node's name is.
-define(MAX_NAME, 255).

%% @doc The question for the node that is `Name' at `Host', the two parts of a node's
%% name or of an alias.
-spec request(Name :: string(), Host :: string()) -> iodata().
request(Name, Host) ->
    oneport_upgrade:request_name(Name, Host).

%% @doc Asks on a connected, passive socket, by `Deadline'. The socket is of no use
%% afterwards; closing it is the caller's.
-spec client(gen_tcp:socket(), Request :: iodata(), oneport_upgrade:deadline()) ->
          {ok, {Name :: string(), Host :: string()}} | {error, reason()}.
client(Socket, Request, Deadline) ->
    case oneport_upgrade:client(Socket, Request, Deadline) of
        {error, {refused, 200, Line}} -> parse(Line);
        {error, Reason} -> {error, Reason};
        {ok, _} -> {error, not_a_name}
    end.

%% What came becomes an atom and stands in logs.
parse(Line) ->
    Good = length(Line) =< ?MAX_NAME andalso not lists:any(fun(C) -> C =< $\s end, Line),
    case string:split(Line, "@", all) of
        [Name, Host] when Good, Name =/= "", Host =/= "" -> {ok, {Name, Host}};
        _ -> {error, not_a_name}
    end.

%% @doc The reason in words that follow "door x", without a full stop.
-spec format_error(reason()) -> unicode:chardata().
format_error(not_a_name) ->
    "answered with something that is no node's name";
format_error(Reason) ->
    oneport_upgrade:format_error(Reason).
