require 'fluent/plugin/filter'

module Fluent
  module Plugin
    # Gives back what a container wrote: the pieces into which the runtime cut a long line are joined, and so are the lines of a stack trace.
    #
    # Whatever may go on is held for up to `wait`, then handed to `held_label`; a JSON object is complete by itself and never held.
    # Bytes that are no UTF-8 are replaced once a line is whole, for a cut may go through a character.
    class WholeLinesFilter < Filter
      Fluent::Plugin.register_filter('whole_lines', self)

      helpers :timer, :event_emitter

      # What the cri parser makes of a line.
      KEY = 'message'.freeze
      PIECE = 'P'.freeze
      OBJECT = '{'.freeze

      config_param :continuation, :regexp, default: /\A(?:[ \t]|Caused by: )/
      config_param :wait, :time, default: 1
      config_param :held_label, :string

      Held = Struct.new(:tag, :time, :record, :pieces, :open, :since)

      def start
        super
        @held = {}
        @lock = Mutex.new
        @away = event_emitter_router(@held_label)
        timer_execute(:whole_lines_wait, @wait / 2.0) { release(Fluent::Clock.now - @wait) }
      end

      def filter_stream(tag, stream)
        whole = MultiEventStream.new
        @lock.synchronize do
          stream.each { |time, record| take(tag, time, record, whole) }
        end
        whole
      end

      def before_shutdown
        release(Fluent::Clock.now)
        super
      end

      private

      def take(tag, time, record, whole)
        key = [tag, record['stream']]
        text = record[KEY]
        open = record['logtag'].to_s.start_with?(PIECE)
        held = @held[key]
        if held && (held.open || @continuation.match?(text))
          held.pieces << "\n" unless held.open
          held.pieces << text
          held.open = open
          held.since = Fluent::Clock.now
        else
          finish(@held.delete(key), whole) if held
          held = @held[key] = Held.new(tag, time, record, [text], open, Fluent::Clock.now)
        end
        finish(@held.delete(key), whole) if !held.open && held.pieces.first.start_with?(OBJECT)
      end

      def finish(held, whole)
        text = held.pieces.join.force_encoding(Encoding::UTF_8)
        held.record[KEY] = text.valid_encoding? ? text : text.scrub
        whole.add(held.time, held.record)
      end

      def release(before)
        due = @lock.synchronize { @held.select { |_, held| held.since <= before }.each_key { |key| @held.delete(key) }.values }
        due.each do |held|
          whole = MultiEventStream.new
          finish(held, whole)
          @away.emit_stream(held.tag, whole)
        end
      end
    end
  end
end
