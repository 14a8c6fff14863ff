defmodule Caller.MixProject do
  use Mix.Project

  def project do
    [
      app: :caller,
      version: "0.1.0",
      elixir: "~> 1.11",
      start_permanent: true,
      deps: [{:oneport, path: "../.."}]
    ]
  end

  def application do
    [extra_applications: [:logger], mod: {Caller, []}]
  end
end
