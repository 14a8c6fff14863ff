defmodule Caller do
  @moduledoc """
  A release that connects to the node TARGET through its door, says how that went
  and ends.
  """
  use Application

  @impl true
  def start(_type, _args) do
    Supervisor.start_link([{Task, &call/0}], strategy: :one_for_one)
  end

  defp call do
    target = String.to_atom(System.fetch_env!("TARGET"))
    answer = Node.ping(target)
    IO.puts("#{node()} pinged #{target}: #{answer}")
    System.stop(if answer == :pong, do: 0, else: 1)
  end
end
