defmodule Pair do
  @moduledoc """
  A release that does nothing but run, and can be asked who it is.
  """

  def who, do: "I am #{node()}"
end
