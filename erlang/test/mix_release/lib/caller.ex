defmodule Caller do
  @moduledoc """
  A release that connects to the node TARGET through its door, says how that went
  and ends. Without a TARGET it waits to be connected to.
  """
  use Application

  @impl true
  def start(_type, _args) do
    children = if target() == "", do: [], else: [{Task, &call/0}]
    Supervisor.start_link(children, strategy: :one_for_one)
  end

  defp target, do: System.fetch_env!("TARGET")

  defp call do
    target = String.to_atom(target())
    answer = Node.ping(target)
    IO.puts("#{node()} pinged #{target}: #{answer}")
    System.stop(if answer == :pong, do: 0, else: 1)
  end
end
